//! An S3 server in a process of its own: moto, run by the Python that `LAKEGATE_TEST_PYTHON` names, or `python3`.
//!
//! One server serves the whole test program; each test makes a bucket of its own. The server ends when
//! its standard input does, so also when the test program is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const SERVER: &str = r#"
import os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"#;

struct Server {
    port: u16,
    /// Holds the pipe whose end ends the server.
    _child: Child,
}

/// The Python interpreter that has what `tests/requirements.txt` lists.
pub(crate) fn python() -> String {
    std::env::var("LAKEGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// The server's address, such as `http://127.0.0.1:40211`.
pub(crate) fn endpoint() -> String {
    format!("http://127.0.0.1:{}", server().port)
}

/// Makes an empty bucket and gives its name.
pub(crate) fn bucket() -> String {
    let name = format!("lake-{}", uuid::Uuid::new_v4());
    let port = server().port;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!(
        "PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: 0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "the S3 server did not make a bucket: {answer}");
    name
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let python = python();
    let mut child = Command::new(&python)
        .args(["-c", SERVER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {python}: {error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().parse().unwrap_or_else(|_| {
        panic!(
            "{python} has no moto; run `make test`, or set LAKEGATE_TEST_PYTHON to a Python with tests/requirements.txt"
        )
    });
    Server { port, _child: child }
}
