"""RapidOCR as an HTTP server: `POST /ocr` with a picture as the body or as the file `picture` of a form."""

import json
import os
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, HTTPServer

from rapidocr_onnxruntime import RapidOCR

ENGINE = RapidOCR()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if kind.startswith("multipart/form-data"):
            form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            body = next(form.iter_parts()).get_payload(decode=True)
        lines, _ = ENGINE(body)
        self.answer({"text": [line[1] for line in lines or []]})

    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
