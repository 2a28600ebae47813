"""`python -m semid_daemon` is `semid`."""

from semid_daemon.cli.main import main

main()
