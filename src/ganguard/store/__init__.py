"""What is on disk: writing, finding, verifying, keeping and setting aside. Imports no torch.

- ``durable``       the calls that differ between operating systems
- ``envelope``      summary and digest in a checkpoint's zip comment
- ``names``         what files are called
- ``commit``        a new checkpoint: whole and durable, or not there
- ``aliases``       ``latest_checkpoint.pth``
- ``catalog``       what a folder holds, newest first
- ``runfile``       ``run.json``: which run and branch a folder belongs to
- ``set_aside``     moving out of the way without destroying
- ``retention``     which checkpoints may go: a pure function
- ``removal``       the only code that deletes checkpoints
- ``backup``        verified copies
- ``lock``          one writer
"""
