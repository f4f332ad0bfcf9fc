//! A proxy in front of a Redis that puts other commands in the place of some: a server that answers as it is told.

// Several crates of tests include this file, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The proxy.
pub struct Rewriting {
    pub port: u16,
    /// The number of commands that were replaced.
    pub replaced: Arc<AtomicUsize>,
}

impl Rewriting {
    /// `instead` says what the server gets in the place of a command: words with `|` between them. `None`: the command
    /// itself.
    pub async fn before(server: u16, instead: impl Fn(&[Vec<u8>]) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (instead, replaced) = (Arc::new(instead), Arc::<AtomicUsize>::default());
        let counted = replaced.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The server may be down.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a connection");
                }
                let ((client_in, mut client_out), (mut server_in, mut server_out)) =
                    (client.into_split(), server.into_split());
                let (instead, counted) = (instead.clone(), counted.clone());
                tokio::spawn(async move {
                    let mut commands = BufReader::new(client_in);
                    while let Some(command) = command(&mut commands).await {
                        let other = instead(&command);
                        counted.fetch_add(usize::from(other.is_some()), Ordering::SeqCst);
                        let words = match &other {
                            Some(other) => other.split('|').map(|word| word.as_bytes().to_vec()).collect(),
                            None => command,
                        };
                        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
                        for word in words {
                            bytes.extend(format!("${}\r\n", word.len()).bytes());
                            bytes.extend(word);
                            bytes.extend(b"\r\n");
                        }
                        if server_out.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
                tokio::spawn(async move { tokio::io::copy(&mut server_in, &mut client_out).await });
            }
        });
        Self { port, replaced }
    }
}

/// The words of the next command.
async fn command(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..number(from, '*').await? {
        let mut word = vec![0; number(from, '$').await? + 2];
        from.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

async fn number(from: &mut (impl AsyncBufReadExt + Unpin), kind: char) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    line.strip_prefix(kind)?.trim_end().parse().ok()
}
