"""A real S3 server process: moto's backend behind werkzeug's HTTP server. Prints its port.

moto checks the condition of a conditional write first and writes then, so two requests at once may both pass; a real
store decides in one step. Here conditional writes wait until no other write is under way. A part for an upload that was
ended meanwhile is NoSuchUpload, as everywhere, where moto has an error of its own.
"""

import argparse
import threading

from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import MultipartDict
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


def _ended(_self, upload_id):
    raise NoSuchUpload(upload_id=upload_id)


MultipartDict.__missing__ = _ended


class Atomic:
    """Conditional writes alone, all others together."""

    def __init__(self, app):
        self.app, self.change, self.writing, self.alone = app, threading.Condition(), 0, False

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return self.app(environ, start_response)
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ
        with self.change:
            self.change.wait_for(lambda: not self.alone and not (conditional and self.writing))
            self.writing += 1
            self.alone = conditional
        try:
            return list(self.app(environ, start_response))
        finally:
            with self.change:
                self.writing -= 1
                self.alone = False
                self.change.notify_all()


class Quiet(WSGIRequestHandler):
    """No line for each request."""

    def log(self, *_args, **_kwargs):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    app = Atomic(create_backend_app("s3"))
    server = make_server(options.host, options.port, app, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
