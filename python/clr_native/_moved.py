"""Where pickles that were made before modules moved find the classes that they name."""

import sys

from clr_native.scheduler import arguments as of_scheduler
from clr_native.schedules import arguments as of_schedules
from clr_native.sgd import gradient_options

gradient_options.GradientRules = gradient_options.GradientOptions  # type: ignore[attr-defined]  # pickles name it so
for name, module in {"_gradient_rules": gradient_options, "_groups": of_schedules, "_per_group": of_scheduler}.items():
    sys.modules[f"{__package__}.{name}"] = module
