//! What waits for hooks, on disk: a table beside `hooks.json`.

use std::io;
use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::queue::{Account, Changes, Job, Key};

/// Messages that wait, as JSON, by hook and time of arrival.
const JOBS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("jobs");
/// How each hook fared, as JSON.
const ACCOUNTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("accounts");
/// Memory for pages, in bytes.
const CACHE: usize = 1 << 20;

/// The open file.
#[derive(Debug)]
pub(super) struct Table(Database);

/// What is written down.
pub(super) type Written = (Vec<(u64, Account)>, Vec<(Key, Job)>);

impl Table {
    /// Opens or makes the file. Waits for another owner in this process to let go of it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Written)> {
        let file = crate::files::open_private(path)?;
        file.lock()?;
        let database = Builder::new().set_cache_size(CACHE).create_file(file).map_err(io::Error::other)?;
        let written = read(&database).map_err(io::Error::other)?;
        Ok((Self(database), written))
    }

    /// Writes all or nothing; on disk when it returns.
    pub(super) fn commit(&self, changes: &Changes) -> io::Result<()> {
        write(&self.0, changes, false).map_err(io::Error::other)
    }

    /// The same in place of everything that is there.
    pub(super) fn rewrite(&self, everything: &Changes) -> io::Result<()> {
        write(&self.0, everything, true).map_err(io::Error::other)
    }
}

fn read(database: &Database) -> Result<Written, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(JOBS)?;
    transaction.open_table(ACCOUNTS)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let mut accounts = Vec::new();
    for row in transaction.open_table(ACCOUNTS)?.iter()? {
        let (hook, account) = row?;
        accounts.push((hook.value(), serde_json::from_slice(account.value()).map_err(io::Error::from)?));
    }
    let mut jobs = Vec::new();
    for row in transaction.open_table(JOBS)?.iter()? {
        let (key, job) = row?;
        jobs.push((key.value(), serde_json::from_slice(job.value()).map_err(io::Error::from)?));
    }
    Ok((accounts, jobs))
}

fn write(database: &Database, changes: &Changes, anew: bool) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    if anew {
        transaction.delete_table(JOBS)?;
        transaction.delete_table(ACCOUNTS)?;
    }
    {
        let mut jobs = transaction.open_table(JOBS)?;
        for (key, job) in &changes.jobs {
            match job {
                Some(job) => {
                    let job = serde_json::to_vec(job).map_err(io::Error::from)?;
                    jobs.insert(key, job.as_slice())?;
                }
                None => drop(jobs.remove(key)?),
            }
        }
        let mut accounts = transaction.open_table(ACCOUNTS)?;
        for (hook, account) in &changes.accounts {
            match account {
                Some(account) => {
                    let account = serde_json::to_vec(account).map_err(io::Error::from)?;
                    accounts.insert(hook, account.as_slice())?;
                }
                None => drop(accounts.remove(hook)?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("hooks.redb");
        let (table, _) = Table::open(&path).unwrap();
        let job = Job { message: "TEXT-1".into(), failures: 2, since_ns: 7 };
        let account = Account { place_ns: 9, done: 1, ..Account::default() };
        let changes = Changes {
            jobs: vec![((1, 5), Some(job.clone())), ((1, 6), Some(job.clone()))],
            accounts: vec![(1, Some(account.clone())), (2, Some(account.clone()))],
        };
        table.commit(&changes).unwrap();
        table.commit(&Changes { jobs: vec![((1, 5), None)], accounts: vec![(2, None)] }).unwrap();
        drop(table);
        let (table, written) = Table::open(&path).unwrap();
        assert_eq!(written, (vec![(1, account.clone())], vec![((1, 6), job)]));
        table.rewrite(&Changes { jobs: Vec::new(), accounts: vec![(3, Some(account.clone()))] }).unwrap();
        drop(table);
        assert_eq!(Table::open(&path).unwrap().1, (vec![(3, account)], Vec::new()));
    }
}
