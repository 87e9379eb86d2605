"""Published methods, one function or small class each: losses and schedules."""
