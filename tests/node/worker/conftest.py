"""For tests that compute: one thread, since on a busy machine a second one of a tiny tensor's
operation costs a hundred times what it saves."""

import torch

torch.set_num_threads(1)
