//! What the system itself costs.

use crate::measure::{Fallible, Plan, Samples, timed};
use phalanx::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

const SIZE: usize = 64;

/// A process that sends back what it is sent.
pub struct Echo {
    child: Child,
    stream: TcpStream,
}

impl Echo {
    pub fn start() -> Fallible<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.args(["--child", "echo"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let stream = TcpStream::connect(line.trim())?;
        stream.set_nodelay(true)?;
        Ok(Echo { child, stream })
    }

    pub fn rounds(&mut self, plan: Plan) -> Fallible<Samples> {
        let mut buffer = [7; SIZE];
        timed(plan, || {
            self.stream.write_all(&buffer)?;
            Ok(self.stream.read_exact(&mut buffer)?)
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side.
pub fn echo() -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; SIZE];
    while stream.read_exact(&mut buffer).is_ok() {
        stream.write_all(&buffer)?;
    }
    Ok(())
}

/// Bytes that the loopback interface has carried since the machine was started.
pub fn loopback_bytes() -> Fallible<u64> {
    let interfaces = fs::read_to_string("/proc/net/dev")?;
    let line = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no loopback")?;
    Ok(bytes.parse()?)
}

/// Files of a CA and of one certificate that driver and executors both show.
pub fn certificates(directory: &Path) -> Fallible<TlsFiles> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let file = |name: &str, text: String| -> Fallible<_> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    Ok(TlsFiles {
        ca: file("ca.pem", authority.pem())?,
        certificate: file("certificate.pem", certificate.pem())?,
        key: file("key.pem", key.serialize_pem())?,
    })
}
