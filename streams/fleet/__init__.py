"""The fleet page of `streams monitor`: a live map of vehicles, over the outputs that an app names (`FleetMap`)."""
