"""Private comments in Excel to a registered, quantised text classifier."""

import logging
import os

# Libraries that would report home, or log to whatever tracker is installed, are told not to before
# any of them is imported. DO_NOT_TRACK alone stops neither MLflow nor ONNX Runtime.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, since 1.29
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

# it warns at every import that `kernels`, which would download code, is absent
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
