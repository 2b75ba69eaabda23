use std::io::{BufRead, BufReader, Result, Write};
use std::net::TcpListener;

fn main() -> Result<()> {
    for client in TcpListener::bind("0.0.0.0:8000")?.incoming() {
        let mut client = client?;
        let (mut first, mut rest) = (String::new(), String::new());
        let mut lines = BufReader::new(client.try_clone()?);
        lines.read_line(&mut first)?;
        while lines.read_line(&mut rest)? > 2 {
            rest.clear();
        }
        let body = format!("you want {}\n", words::path(&first).unwrap_or("nothing"));
        write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", body.len(), body)?;
    }
    Ok(())
}
