"""The catalogue in the forms that others read: one file per consumer's form, each exact to the letter."""
