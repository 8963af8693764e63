//! PostgreSQL servers for tests: the one of `PILOT_TEST_POSTGRES`, or private ones made from what is installed.
//!
//! A private server lives in a temporary folder, is reached by a Unix socket, and ends with the test program, however that
//! ends: a shell waits for the end of its standard input, then stops the server and removes the folder.

use pilot_rendezvous::store::StoreUrl;
use sqlx::{Connection, PgConnection};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Of the private servers; where it appears something has leaked.
pub(crate) const PASSWORD: &str = "s3cret";

pub(crate) struct Postgres {
    /// With a database from which others can be made.
    url: String,
    private: Option<Private>,
}

struct Private {
    binaries: PathBuf,
    folder: PathBuf,
    shell: Child,
}

/// A new database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn store(&self) -> StoreUrl {
        self.url.parse().unwrap()
    }

    pub(crate) async fn execute(&self, statements: &str) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    }

    pub(crate) async fn numbers(&self, query: &str) -> Vec<i64> {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap()
    }
}

/// A database of a server that all tests of this program share.
pub(crate) fn database() -> Database {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    let server = SHARED.get_or_init(|| match std::env::var("PILOT_TEST_POSTGRES") {
        Ok(url) => Postgres { url, private: None },
        Err(_) => Postgres::private(),
    });
    server.database()
}

impl Postgres {
    pub(crate) fn private() -> Self {
        Self::private_with("", &[])
    }

    /// With a certificate for `localhost` and its key, in PEM, listening there on this port too.
    pub(crate) fn private_with_tls(port: u16, certificate: &str, key: &str) -> Self {
        let settings = format!(
            "listen_addresses = 'localhost'\nport = {port}\nssl = on\nssl_cert_file = '../server.crt'\n\
             ssl_key_file = '../server.key'\n"
        );
        let mut server = Self::private_with(&settings, &[("server.crt", certificate), ("server.key", key)]);
        server.url = format!("{}&port={port}", server.url);
        server
    }

    fn private_with(settings: &str, files: &[(&str, &str)]) -> Self {
        let binaries = binaries().unwrap_or_else(|| {
            panic!(
                "PostgreSQL is not installed: no `initdb` in PATH or /usr/lib/postgresql; install it (Debian: \
                 postgresql), or set PILOT_TEST_POSTGRES to the URL of a server on which databases may be made"
            )
        });
        let folder = tempfile::Builder::new().prefix("pilot-pg-").tempdir_in("/tmp").unwrap().keep();
        let default = "listen_addresses = ''\n";
        let settings = format!(
            "{default}unix_socket_directories = '{}'\nmax_connections = 50\n{settings}",
            folder.display()
        );
        for (name, content) in [("password", PASSWORD), ("settings", &settings)].iter().chain(files) {
            let mut file = std::fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
            let mut file = file.write(true).create_new(true).open(folder.join(name)).unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        }
        if is_root() {
            let owned = Command::new("chown").args(["-R", user()]).arg(&folder).status();
            assert!(owned.unwrap().success());
        }
        let script = r#"
            set -e
            cd "$2"
            "$1/initdb" -D data -U postgres -A scram-sha-256 --pwfile password -E UTF8 --locale C --no-sync >initdb.log
            cat settings >>data/postgresql.conf
            "$1/pg_ctl" -D data -l server.log -w start >start.log
            echo ready
            cat >/dev/null
            "$1/pg_ctl" -D data -m immediate stop >stop.log || true
            cd /
            rm -rf "$2"
        "#;
        let mut shell = as_user("sh")
            .args(["-c", script, "sh"])
            .args([&binaries, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("shell.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "PostgreSQL does not start; see {}", folder.display());
        let url = format!("postgres://postgres:{PASSWORD}@localhost/postgres?host={}", folder.display());
        Self { url, private: Some(Private { binaries, folder, shell }) }
    }

    pub(crate) fn database(&self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pilot_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (place, parameters) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (place, _) = place.rsplit_once('/').expect("the URL names a database");
        let database = Database { url: format!("{place}/{name}?{parameters}") };
        let maintenance = Database { url: self.url.clone() };
        // Tests call this from inside of a runtime and from outside.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(maintenance.execute(&format!("CREATE DATABASE {name}")));
        })
        .join()
        .unwrap();
        database
    }

    /// Over TCP, as it is without its parameters.
    pub(crate) fn over_tcp(&self, port: u16) -> String {
        let database = self.database().url;
        let (place, _) = database.split_once('?').unwrap();
        place.replace("@localhost/", &format!("@localhost:{port}/"))
    }

    /// `stop`, `start` or `restart` of a private server, with no regard for what it does.
    pub(crate) fn control(&self, action: &str) {
        let private = self.private.as_ref().expect("this server is ours");
        let mut command = as_user(private.binaries.join("pg_ctl"));
        command.current_dir(&private.folder).args(["-D", "data", "-l", "server.log", "-w", action]);
        if action != "start" {
            command.args(["-m", "immediate"]);
        }
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(done.success(), "pg_ctl {action}");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(private) = &mut self.private {
            drop(private.shell.stdin.take());
            private.shell.wait().unwrap();
        }
    }
}

fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("pg_ctl").exists();
    in_path.into_iter().chain(versions.into_iter().rev()).find(complete)
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// PostgreSQL refuses to run as root.
fn user() -> &'static str {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if passwd.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

fn as_user(program: impl AsRef<Path>) -> Command {
    if !is_root() {
        return Command::new(program.as_ref());
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user(), "--clear-groups", "--"]).arg(program.as_ref());
    command
}
