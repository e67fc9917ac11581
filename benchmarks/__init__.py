"""Speed and memory beside what people use today; `python -m benchmarks` measures. reidlib needs none of this."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # bars would be drawn while the clock runs
