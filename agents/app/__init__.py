"""The page of ``imagerestore app``; only :mod:`agents.app.page` and :mod:`agents.app.server` need gradio."""
