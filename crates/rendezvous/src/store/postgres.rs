//! A PostgreSQL database for several instances that serve at once.
//!
//! Each record is a row. One row for all, `pilot_registry`, is locked by whoever writes: writers take turns, so revisions are
//! in the order of commits, and "everything after the last revision I saw" is exactly what others have done. A writer
//! reads that first and then decides, so nothing it decides is ever in conflict.
//!
//! A writer that stops in the middle is thrown out by the server after [`IDLE`]; its write is then not there.

mod talk;

use super::{Delta, Doing, Others, PostgresUrl, Store, StoreError, word};
use crate::registry::{Change, Key, Record};
use futures_util::TryStreamExt;
use pilot_wire::{NetworkId, NodeId};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Row, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::PgRow,
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// What changed the tables, oldest first: number, name and statements. What has been released is never edited.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "records", include_str!("../../migrations/0001_records.sql"))];
/// Other programs in the same database keep their own.
const MIGRATIONS_TABLE: &str = "pilot_migrations";

/// How long a call may take, waiting for the others' turns included.
const DEADLINE: Duration = Duration::from_secs(5);
/// How much longer for each record that is written; a registry that is put back has hundreds of thousands.
const PER_RECORD: Duration = Duration::from_micros(500);
/// Records written by one statement: between two the server must not think that we have stopped.
const CHUNK: usize = 4096;
/// How long the start may take; another instance may be changing the tables.
const START: Duration = Duration::from_secs(60);
/// After this silence in the middle of a turn the server ends it, in milliseconds. We decide within some.
const IDLE: u32 = 2000;
/// How long to wait for the others' turns, in milliseconds. Less than [`DEADLINE`].
const LOCK: u32 = 4000;
/// Between two rounds of forgetting removals.
const PURGE: Duration = Duration::from_secs(3600);

/// An open database.
#[derive(Debug)]
pub struct Postgres {
    url: PostgresUrl,
    /// Names this process on the channel.
    instance: u64,
    channel: String,
    /// None after a failure.
    connection: Option<PgConnection>,
    /// The last write that was seen.
    seen: i64,
    others: Option<Others>,
    purge_at: Instant,
}

/// The state of all records.
struct Mark {
    revision: i64,
    purged: i64,
}

impl Postgres {
    /// Connects, makes or updates the tables, and reads everything in them.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn open(url: &PostgresUrl) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        let opening = timeout(START, Self::open_slowly(url)).await;
        opening.unwrap_or_else(|_| Err(unreachable(url, "it does not answer in time".to_owned())))
    }

    async fn open_slowly(url: &PostgresUrl) -> Result<(Self, Vec<(Key, Record)>), StoreError> {
        let fault = |error: sqlx::Error| start_error(url, &error);
        let mut connection = connect(url).await.map_err(fault)?;
        migrate(url, &mut connection).await?;
        warn_if_careless(&mut connection).await.map_err(fault)?;
        let id: String = sqlx::query_scalar("SELECT replace(id::text, '-', '') FROM pilot_registry")
            .fetch_one(&mut connection)
            .await
            .map_err(fault)?;
        let instance = pilot_crypto::random_bytes().map_err(|error| StoreError::Failed(Box::new(error)))?;
        let mut store = Self {
            url: url.clone(),
            instance: u64::from_be_bytes(instance),
            channel: format!("pilot_{id}"),
            connection: None,
            seen: 0,
            others: None,
            purge_at: Instant::now() + PURGE,
        };
        store.others = Some(talk::start(url.clone(), store.instance, store.channel.clone()));
        let mut transaction =
            connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(fault)?;
        let mark = mark(&mut transaction).await.map_err(fault)?;
        let rows = rows(&mut transaction, "value IS NOT NULL AND revision > $1", -1).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        let records = rows.into_iter().filter_map(|row| match store.change(&row) {
            Ok((key, record)) => record.map(|record| Ok((key, record))),
            Err(error) => Some(Err(error)),
        });
        let records = records.collect::<Result<_, _>>()?;
        limit(&mut connection).await.map_err(fault)?;
        store.seen = mark.revision;
        store.connection = Some(connection);
        Ok((store, records))
    }

    /// Works on the connection, or on a new one. One on which something failed is given up, and with it its turn.
    async fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&Self, &mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.within(DEADLINE, work).await
    }

    async fn within<T>(
        &mut self,
        deadline: Duration,
        work: impl AsyncFnOnce(&Self, &mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let taken = self.connection.take();
        let working = async {
            let mut connection = match taken {
                Some(connection) => connection,
                None => {
                    let mut connection = connect(&self.url).await.map_err(failed)?;
                    limit(&mut connection).await.map_err(failed)?;
                    connection
                }
            };
            let outcome = work(self, &mut connection).await?;
            Ok((connection, outcome))
        };
        let late = |_| Err(StoreError::Failed("the database does not answer in time".into()));
        let (connection, outcome) = timeout(deadline, working).await.unwrap_or_else(late)?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    /// What happened after `seen`, up to `mark`.
    async fn delta(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        doubtful: &BTreeSet<Key>,
    ) -> Result<Delta, StoreError> {
        // The database was put back to an earlier state, or we were away for longer than removals are remembered.
        let whole = mark.revision < self.seen || self.seen < mark.purged;
        let mut changes = Vec::new();
        if whole {
            for row in rows(connection, "value IS NOT NULL AND revision > $1", -1).await.map_err(failed)? {
                changes.push(self.change(&row)?);
            }
        } else {
            if !doubtful.is_empty() {
                changes.extend(self.truth(connection, doubtful).await?);
            }
            if mark.revision > self.seen {
                for row in rows(connection, "revision > $1", self.seen).await.map_err(failed)? {
                    changes.push(self.change(&row)?);
                }
            }
        }
        Ok(Delta { changes, whole, revision: u64::try_from(mark.revision).unwrap_or_default() })
    }

    async fn truth(
        &self,
        connection: &mut PgConnection,
        keys: &BTreeSet<Key>,
    ) -> Result<Vec<Change>, StoreError> {
        let (kinds, numbers): (Vec<&str>, Vec<i64>) = keys.iter().map(|key| name(*key)).unzip();
        let rows = sqlx::query(
            "SELECT kind, number, value FROM pilot_records JOIN unnest($1::text[], $2::bigint[]) AS wanted (kind, number) \
             USING (kind, number)",
        );
        let rows = rows.bind(kinds).bind(numbers).fetch_all(connection).await.map_err(failed)?;
        let mut changes: std::collections::BTreeMap<Key, Option<Record>> =
            keys.iter().map(|key| (*key, None)).collect();
        for row in &rows {
            let (key, record) = self.change(row)?;
            changes.insert(key, record);
        }
        Ok(changes.into_iter().collect())
    }

    fn change(&self, row: &PgRow) -> Result<Change, StoreError> {
        let damaged = |reason: String| StoreError::Damaged { store: self.url.to_string(), reason };
        let unreadable = |error: sqlx::Error| damaged(format!("a row is unreadable: {error}"));
        let kind: &str = row.try_get("kind").map_err(unreadable)?;
        let number: i64 = row.try_get("number").map_err(unreadable)?;
        let value: Option<&str> = row.try_get("value").map_err(unreadable)?;
        let key = named(kind, number).ok_or_else(|| damaged(format!("unknown key {kind} {number}")))?;
        let record = value.map(serde_json::from_str).transpose();
        let record = record.map_err(|error| damaged(format!("the record {key:?} is unreadable: {error}")))?;
        Ok((key, record))
    }

    async fn take_turn(&mut self, doubtful: BTreeSet<Key>) -> Result<Delta, StoreError> {
        let delta = self
            .with(async |store, connection| {
                let row = sqlx::raw_sql(
                    "BEGIN; UPDATE pilot_registry SET revision = revision + 1 RETURNING revision - 1 AS revision, purged",
                );
                let rows = row.fetch_all(&mut *connection).await.map_err(failed)?;
                let mark = rows.first().map(marked).transpose().map_err(failed)?;
                let mark = mark.ok_or_else(|| StoreError::Failed("pilot_registry is empty".into()))?;
                store.delta(connection, &mark, &doubtful).await
            })
            .await?;
        self.seen = i64::try_from(delta.revision).unwrap_or(i64::MAX);
        Ok(delta)
    }

    async fn end_turn(&mut self, changes: Vec<Change>) -> Result<u64, StoreError> {
        if self.connection.is_none() {
            return Err(StoreError::Failed("the connection to the database was lost".into()));
        }
        if changes.is_empty() {
            self.with(async |_, connection| {
                sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop).map_err(failed)
            })
            .await?;
            return Ok(u64::try_from(self.seen).unwrap_or_default());
        }
        let revision = self.seen + 1;
        let purges = Instant::now() >= self.purge_at;
        let records = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        self.within(DEADLINE + PER_RECORD * records, async |store, connection| {
            for changes in changes.chunks(CHUNK) {
                write(connection, revision, changes).await.map_err(failed)?;
            }
            if purges {
                purge(connection).await.map_err(failed)?;
            }
            let notice = word::changed(store.instance, u64::try_from(revision).unwrap_or_default());
            let end = format!("SELECT pg_notify('{}', '{notice}'); COMMIT", store.channel);
            sqlx::raw_sql(AssertSqlSafe(end)).execute(connection).await.map(drop).map_err(failed)
        })
        .await?;
        self.seen = revision;
        if purges {
            self.purge_at = Instant::now() + PURGE;
        }
        Ok(u64::try_from(revision).unwrap_or_default())
    }

    async fn read_on(&mut self, doubtful: BTreeSet<Key>) -> Result<Delta, StoreError> {
        let delta = self
            .with(async |store, connection| {
                let mut reading = connection
                    .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
                    .map_err(failed)?;
                let mark = mark(&mut reading).await.map_err(failed)?;
                let delta = store.delta(&mut reading, &mark, &doubtful).await?;
                reading.commit().await.map_err(failed)?;
                Ok(delta)
            })
            .await?;
        self.seen = i64::try_from(delta.revision).unwrap_or(i64::MAX);
        Ok(delta)
    }
}

impl Store for Postgres {
    fn begin(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>> {
        Box::pin(self.take_turn(doubtful))
    }

    fn commit(&mut self, changes: Vec<Change>) -> Doing<'_, Result<u64, StoreError>> {
        Box::pin(self.end_turn(changes))
    }

    fn catch_up(&mut self, doubtful: BTreeSet<Key>) -> Doing<'_, Result<Delta, StoreError>> {
        Box::pin(self.read_on(doubtful))
    }

    fn others(&mut self) -> Option<Others> {
        self.others.take()
    }
}

async fn connect(url: &PostgresUrl) -> Result<PgConnection, sqlx::Error> {
    let connecting = timeout(DEADLINE, PgConnection::connect_with(&url.options)).await;
    connecting.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// A server that was told to acknowledge before it writes is told otherwise for us.
async fn limit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let settings = format!(
        "SET lock_timeout = {LOCK}; SET idle_in_transaction_session_timeout = {IDLE}; \
         SET default_transaction_isolation = 'read committed'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(drop)
}

async fn warn_if_careless(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')").fetch_one(connection).await?;
    if fsync == "off" {
        tracing::warn!("the database has fsync = off: what is acknowledged may be lost with the power");
    }
    Ok(())
}

async fn migrate(url: &PostgresUrl, connection: &mut PgConnection) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrations = Migrator::with_migrations(migrations.into());
    migrations.dangerous_set_table_name(MIGRATIONS_TABLE);
    let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    let number = |version: i64| u64::try_from(version).unwrap_or_default();
    match migrations.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _)) => {
            Err(StoreError::Format { store: url.to_string(), found: number(found), known: number(known) })
        }
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(start_error(url, &error))
        }
        Err(error) => Err(StoreError::Damaged { store: url.to_string(), reason: error.to_string() }),
    }
}

async fn mark(connection: &mut PgConnection) -> Result<Mark, sqlx::Error> {
    let row = sqlx::query("SELECT revision, purged FROM pilot_registry").fetch_one(connection).await?;
    marked(&row)
}

fn marked(row: &PgRow) -> Result<Mark, sqlx::Error> {
    Ok(Mark { revision: row.try_get("revision")?, purged: row.try_get("purged")? })
}

async fn rows(
    connection: &mut PgConnection,
    condition: &'static str,
    revision: i64,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let query = format!("SELECT kind, number, value FROM pilot_records WHERE {condition}");
    sqlx::query(AssertSqlSafe(query)).bind(revision).fetch(connection).try_collect().await
}

/// Some facts are beside the record, for the database to check.
async fn write(connection: &mut PgConnection, revision: i64, changes: &[Change]) -> Result<(), sqlx::Error> {
    let mut kinds = Vec::with_capacity(changes.len());
    let mut numbers = Vec::with_capacity(changes.len());
    let mut values = Vec::with_capacity(changes.len());
    let mut keys = Vec::with_capacity(changes.len());
    let mut names = Vec::with_capacity(changes.len());
    for (key, record) in changes {
        let (kind, number) = name(*key);
        kinds.push(kind);
        numbers.push(number);
        let value = record.as_ref().map(serde_json::to_string).transpose();
        values.push(value.map_err(|error| sqlx::Error::Encode(error.into()))?);
        let (key, name) = match record {
            Some(Record::Node(node)) => {
                let presence = node.presence.as_ref();
                (Some(node.key.to_base64()), presence.and_then(|presence| presence.hostname.clone()))
            }
            Some(Record::Network(network)) => (None, Some(network.name.clone())),
            Some(
                Record::Counters(_)
                | Record::Consents { .. }
                | Record::Inbox(_)
                | Record::Tasks { .. }
                | Record::KeyLife(_)
                | Record::Cards(_)
                | Record::Audit(_)
                | Record::Mesh { .. }
                | Record::Authority { .. },
            )
            | None => (None, None),
        };
        keys.push(key);
        names.push(name);
    }
    let upsert = sqlx::query(
        "INSERT INTO pilot_records (kind, number, revision, value, public_key, name, removed_at) \
         SELECT kind, number, $1, value, public_key, name, CASE WHEN value IS NULL THEN now() END \
         FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[]) \
           AS new (kind, number, value, public_key, name) \
         ON CONFLICT (kind, number) DO UPDATE SET revision = excluded.revision, value = excluded.value, \
           public_key = excluded.public_key, name = excluded.name, removed_at = excluded.removed_at",
    );
    upsert
        .bind(revision)
        .bind(kinds)
        .bind(numbers)
        .bind(values)
        .bind(keys)
        .bind(names)
        .execute(connection)
        .await
        .map(drop)
}

/// Forgets what was removed more than a day ago. Who was away for longer reads everything.
async fn purge(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let purge = sqlx::query(
        "WITH gone AS (DELETE FROM pilot_records WHERE value IS NULL AND removed_at < now() - interval '1 day' \
           RETURNING revision) \
         UPDATE pilot_registry SET purged = greatest(purged, (SELECT max(revision) FROM gone)) \
         WHERE EXISTS (SELECT FROM gone)",
    );
    purge.execute(connection).await.map(drop)
}

fn name(key: Key) -> (&'static str, i64) {
    match key {
        Key::Counters => ("counters", 0),
        Key::Node(node) => ("node", node.0.into()),
        Key::Consents(node) => ("consents", node.0.into()),
        Key::Inbox(node) => ("inbox", node.0.into()),
        Key::Tasks(node) => ("tasks", node.0.into()),
        Key::Network(network) => ("network", network.0.into()),
        Key::KeyLife(node) => ("key_life", node.0.into()),
        Key::Cards(node) => ("cards", node.0.into()),
        Key::Audit(place) => ("audit", place.into()),
        Key::Mesh => ("mesh", 0),
        Key::Authority => ("authority", 0),
    }
}

fn named(kind: &str, number: i64) -> Option<Key> {
    let node = || u32::try_from(number).ok().map(NodeId);
    match kind {
        "counters" => Some(Key::Counters),
        "node" => node().map(Key::Node),
        "consents" => node().map(Key::Consents),
        "inbox" => node().map(Key::Inbox),
        "tasks" => node().map(Key::Tasks),
        "key_life" => node().map(Key::KeyLife),
        "cards" => node().map(Key::Cards),
        "audit" => u32::try_from(number).ok().map(Key::Audit),
        "mesh" => Some(Key::Mesh),
        "authority" => Some(Key::Authority),
        "network" => u16::try_from(number).ok().map(|number| Key::Network(NetworkId(number))),
        _ => None,
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::Failed(Box::new(error))
}

fn unreachable(url: &PostgresUrl, reason: String) -> StoreError {
    StoreError::Unreachable { store: url.to_string(), reason }
}

/// Classes and codes: "PostgreSQL Error Codes" in its manual.
fn start_error(url: &PostgresUrl, error: &sqlx::Error) -> StoreError {
    let store = url.to_string();
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    let said = error.as_database_error().map(|error| error.message().to_owned());
    let reason = said.unwrap_or_else(|| error.to_string());
    match code.as_str() {
        "" => unreachable(url, reason),
        "3D000" => StoreError::NoDatabase { store, reason },
        "42501" => StoreError::Forbidden { store, reason },
        code if code.starts_with("28") => StoreError::Denied { store, reason },
        // It starts, stops, or has no room for another connection.
        code if code.starts_with("57P") || code.starts_with("53") || code.starts_with("55") => {
            unreachable(url, reason)
        }
        _ => StoreError::Damaged { store, reason },
    }
}
