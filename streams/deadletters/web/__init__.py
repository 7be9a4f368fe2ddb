"""The review page: dead letters in a browser. A sub-application with routes of its own, to be mounted anywhere."""

from streams.deadletters.web.app import dead_letters_app

__all__ = ["dead_letters_app"]
