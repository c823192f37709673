"""Loading a base, proving how it was quantised, attaching an adapter."""

import logging

# On some CPUs bitsandbytes warns at import that an optional package is missing, for a path that is not
# used here (`base._plain_cpu_kernels`). A warning that asks for nothing only worries.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
