"""What holds for every test: how many examples Hypothesis tries, and for how long."""

import os

from hypothesis import HealthCheck, settings

# A busy machine is slow without being wrong, so nothing here is judged by the clock.
settings.register_profile(
    "gate",
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("gate"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
