"""The model: language side, fusion, mask side, and the frozen encoders beside them."""

import logging

# peft imports bitsandbytes where it is installed, which tells every run of a kernel it has not got
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
