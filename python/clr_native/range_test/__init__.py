"""Smith's learning rate range test: bounds for the cycle from one short run, with nothing disturbed."""

from clr_native.range_test.bounds import LearningRateBounds
from clr_native.range_test.result import RangeTestResult
from clr_native.range_test.run import lr_range_test

__all__ = ["LearningRateBounds", "RangeTestResult", "lr_range_test"]
