"""The review page: dead letters in a browser. `app.dead_letters_app` is mounted by the monitor."""
