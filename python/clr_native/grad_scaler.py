"""What stood here is in ``clr_native.sgd.grad_scaler``, and still found here."""

from clr_native.sgd.grad_scaler import GradScaler as GradScaler
