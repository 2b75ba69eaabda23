from flask import Flask, render_template

app = Flask(__name__)


@app.route("/<name>")
def hello(name):
    return render_template("hello.html", name=name)


app.run(host="0.0.0.0", port=5000)
