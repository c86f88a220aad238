"""The service of the old stack: python service.py WEIGHTS. Flask around OpenAI's CLIP in PyTorch; photos come as base64 in JSON.

It says its port in a line, and ends when its standard input does.
"""

import base64
import os
import sys
import threading
from io import BytesIO

import clip
import torch
from flask import Flask, jsonify, request
from PIL import Image
from werkzeug.serving import WSGIRequestHandler, make_server

app = Flask(__name__)
model, preprocess = clip.load(sys.argv[1], device="cpu", jit=False)


@app.post("/embed/text")
def embed_text():
    with torch.no_grad():
        embedding = model.encode_text(clip.tokenize([request.json["text"]]))
    return answer(embedding)


@app.post("/embed/image")
def embed_image():
    image = Image.open(BytesIO(base64.b64decode(request.json["image"])))
    with torch.no_grad():
        embedding = model.encode_image(preprocess(image).unsqueeze(0))
    return answer(embedding)


def answer(embedding: torch.Tensor):
    embedding = embedding / embedding.norm(dim=-1, keepdim=True)
    return jsonify({"embedding": embedding[0].tolist()})


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *arguments: object) -> None:
        pass


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    # As app.run(threaded=True), with a port that is free.
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()
