//! Where the records are: a file, or a database by its URL, whose password is shown to nobody.

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a registry's records are.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// In this file.
    File(PathBuf),
    /// In this PostgreSQL database.
    Postgres(PostgresUrl),
}

/// The URL of a PostgreSQL database. It is shown without its password.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) options: Box<PgConnectOptions>,
    shown: String,
}

/// Why a text names no store. It does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It begins like a URL of PostgreSQL, and is none.
    #[error("not a URL such as postgres://user:password@host:5432/database: {0}")]
    Malformed(String),
    /// A URL of something else.
    #[error("`{0}://` is no store: give a path or postgres://...")]
    Scheme(String),
    /// Nothing at all.
    #[error("an empty text names no store")]
    Empty,
}

impl StoreUrl {
    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        let Some((scheme, _)) = text.split_once("://") else { return Ok(Self::File(text.into())) };
        match scheme {
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(text);
                let options = options.map_err(|error| UrlError::Malformed(plain(&error)))?;
                let options = options.application_name("pilot-rendezvous").disable_statement_logging();
                Ok(Self::Postgres(PostgresUrl { options: Box::new(options), shown: redacted(text) }))
            }
            // A folder may be called `a:`; a scheme is letters and digits.
            _ if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Err(UrlError::Scheme(scheme.to_owned()))
            }
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// The library's own prefix says nothing to people.
fn plain(error: &sqlx::Error) -> String {
    if let sqlx::Error::Configuration(source) = error { source.to_string() } else { error.to_string() }
}

impl From<PathBuf> for StoreUrl {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresUrl").field(&self.shown).finish()
    }
}

/// The URL without the password between user and host, and without any in its parameters. Where the text is unclear it
/// takes away too much rather than too little.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let (place, parameters) = match rest.rfind('@') {
        // A password may hold a `?` that nobody encoded.
        Some(at) => match rest[at..].find('?') {
            Some(question) => rest.split_at(at + question),
            None => (rest, ""),
        },
        None => rest.find('?').map_or((rest, ""), |question| rest.split_at(question)),
    };
    let place = match place.rsplit_once('@') {
        Some((who, place)) => match who.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => format!("{who}@{place}"),
        },
        None => place.to_owned(),
    };
    let mut shown = format!("{scheme}://{place}");
    let mut lead = '?';
    for parameter in parameters.trim_start_matches('?').split('&').filter(|text| !text.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        shown.push(lead);
        lead = '&';
        if name.to_ascii_lowercase().contains("password") || name.contains('%') {
            shown.push_str(name);
            shown.push_str("=***");
        } else {
            shown.push_str(parameter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            (
                "postgres://pilot:s3cret@db.example.com:5432/pilot",
                "postgres://pilot:***@db.example.com:5432/pilot",
            ),
            ("postgresql://pilot:s3cret@/pilot?host=/run/pg", "postgresql://pilot:***@/pilot?host=/run/pg"),
            ("postgres://pilot@db/pilot?sslmode=require", "postgres://pilot@db/pilot?sslmode=require"),
            ("postgres:///pilot?user=a&password=s3cret", "postgres:///pilot?user=a&password=***"),
            ("postgres://a:s3cret@s3cret@db/x", "postgres://a:***@db/x"),
            ("postgres://a:s3cret?s3cret=1@db/x", "postgres://a:***@db/x"),
            ("postgres://a:s3cret/s3cret@db/x?password=s3cret", "postgres://a:***@db/x?password=***"),
        ] {
            assert_eq!(redacted(url), shown);
            match url.parse::<StoreUrl>() {
                Ok(parsed) => {
                    let texts = format!("{parsed} {parsed:?}");
                    assert!(!texts.contains("s3cret"), "{texts}");
                }
                Err(error) => assert!(!error.to_string().contains("s3cret"), "{error}"),
            }
        }
    }

    #[test]
    fn a_path_is_a_file_and_another_url_is_nothing() {
        for path in ["rendezvous.redb", "/var/lib/pilot/x", "C:\\store", "./a:/b"] {
            assert_eq!(path.parse::<StoreUrl>().unwrap().file(), Some(Path::new(path)));
        }
        assert_eq!("mysql://a/b".parse::<StoreUrl>().unwrap_err(), UrlError::Scheme("mysql".to_owned()));
        assert_eq!("".parse::<StoreUrl>().unwrap_err(), UrlError::Empty);
        assert!(matches!("postgres://host:port/x".parse::<StoreUrl>(), Err(UrlError::Malformed(_))));
    }
}
