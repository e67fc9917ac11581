"""Speed and memory beside what people use today; `make benchmark` measures. reidlib needs none of this."""
