"""A property that holds on a quiet machine holds on a busy one: no example of Hypothesis has to be quick."""

from hypothesis import settings

settings.register_profile("patient", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("patient")
