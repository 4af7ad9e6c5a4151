"""The same networks on PyTorch (`pip install penstock[torch]`): one GPU or several; weights move both ways.

Nothing else imports this package, so that PyTorch is loaded only where it is asked for.
"""
