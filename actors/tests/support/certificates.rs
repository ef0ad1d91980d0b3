//! Certificates of CAs that are made for a test.

use phalanx_actors::remote::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("phalanx-link-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// Who signs.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Ca {
    pub fn new(folder: &Folder, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = folder.0.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Ca { issuer: Issuer::new(params, key), file }
    }

    /// A certificate for `localhost`.
    pub fn sign(&self, folder: &Folder, name: &str) -> TlsFiles {
        self.sign_with(folder, name, |_| {})
    }

    /// One that was good until yesteryear.
    pub fn sign_expired(&self, folder: &Folder, name: &str) -> TlsFiles {
        self.sign_with(folder, name, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn sign_with(
        &self,
        Folder(folder): &Folder,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> TlsFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: String| {
            let path: &Path = &folder.join(format!("{name}-{kind}.pem"));
            fs::write(path, text).unwrap();
            path.to_owned()
        };
        let (certificate, key) = (write("cert", signed.pem()), write("key", key.serialize_pem()));
        TlsFiles { ca: self.file.clone(), certificate, key }
    }
}
