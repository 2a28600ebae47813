"""GRID's classes (snap-research/GRID, arXiv 2507.22224), for parity with GRID and for the Python API.

The daemon trains with `lloyd.LloydTrainer` and encodes with `encoding.Encoder`; it uses this package with
`trainer = "grid"` only. So two things exist twice in `quantizer`, and cannot be united, because each must give its
own results to the bit:

- k-means++: `initializers` draws as GRID does, one candidate per draw on all rows of the buffer; `seeding` draws
  greedily among several candidates, on a sample, from random numbers in another order.
- Sculley's mini-batch update: `kmeans` follows the gradient of a loss with any optimizer; `LloydTrainer.refine` and
  `ContinualTrainer` move centroids directly, and count weighted, forgotten and sampled rows.
"""
