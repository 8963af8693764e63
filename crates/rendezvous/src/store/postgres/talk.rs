//! What instances over one database say to each other: one connection listens, one speaks.
//!
//! Every instance speaks at least every [`BEAT`], and hears itself: who hears nothing for [`DEAF`] has lost its connection,
//! whatever the operating system thinks of it.

use crate::store::{
    Elsewhere, Others, PostgresUrl, Word,
    word::{self, Notice},
};
use sqlx::{
    PgConnection,
    postgres::{PgListener, PgPoolOptions},
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// The longest silence of one that speaks.
const BEAT: Duration = Duration::from_secs(5);
/// The longest silence of one that listens.
const DEAF: Duration = Duration::from_secs(15);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);
/// What was heard and is not dealt with yet; more waits at the server.
const HEARD: usize = 256;
/// What is to be said; more is not said.
const TO_TELL: usize = 4;

pub(super) fn start(url: PostgresUrl, instance: u64, channel: String) -> Others {
    let (to_registry, heard) = mpsc::channel(HEARD);
    let (tell, words) = mpsc::channel(TO_TELL);
    tokio::spawn(listen(url.clone(), instance, channel.clone(), to_registry));
    tokio::spawn(speak(url, instance, channel, words));
    Others { heard, tell }
}

/// Ends when nobody wants to hear it any more.
async fn listen(url: PostgresUrl, instance: u64, channel: String, to_registry: mpsc::Sender<Elsewhere>) {
    while !to_registry.is_closed() {
        match ear(&url, &channel).await {
            Ok(mut ear) => {
                if to_registry.send(Elsewhere::Back).await.is_err() {
                    return;
                }
                let why = tokio::select! {
                    why = hear(&mut ear, instance, &to_registry) => why,
                    () = to_registry.closed() => return,
                };
                tracing::warn!(error = why, "the other instances are not heard");
                if to_registry.send(Elsewhere::Lost).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "the other instances are not heard yet"),
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = to_registry.closed() => {}
        }
    }
}

async fn ear(url: &PostgresUrl, channel: &str) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(BEAT)
        .connect_lazy_with((*url.options).clone());
    let mut ear = PgListener::connect_with(&pool).await?;
    ear.eager_reconnect(false);
    ear.listen(channel).await?;
    Ok(ear)
}

/// Until nothing is heard any more; says why.
async fn hear(ear: &mut PgListener, instance: u64, to_registry: &mpsc::Sender<Elsewhere>) -> String {
    loop {
        let notification = match timeout(DEAF, ear.try_recv()).await {
            Ok(Ok(Some(notification))) => notification,
            Ok(Ok(None)) => return "the connection was closed".to_owned(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it is silent".to_owned(),
        };
        let Some((from, notice)) = word::parse(notification.payload()) else {
            tracing::debug!(text = notification.payload(), "a notification is not understood");
            continue;
        };
        if from == instance {
            continue;
        }
        let elsewhere = match notice {
            Notice::Here => continue,
            Notice::Changed(revision) => Elsewhere::Changed { revision },
            Notice::Word(word) => Elsewhere::Said(word),
        };
        if to_registry.send(elsewhere).await.is_err() {
            return "nobody wants to hear it".to_owned();
        }
    }
}

/// Ends when there is nobody any more who could have something to say.
async fn speak(url: PostgresUrl, instance: u64, channel: String, mut words: mpsc::Receiver<Vec<Word>>) {
    let mut connection = None;
    loop {
        let words = match timeout(BEAT, words.recv()).await {
            Ok(Some(words)) => words,
            Ok(None) => return,
            Err(_) => Vec::new(),
        };
        let mut texts: Vec<String> = words.iter().flat_map(|word| word::texts(instance, word)).collect();
        if texts.is_empty() {
            texts.push(word::here(instance));
        }
        let said = timeout(BEAT, say(&url, connection.take(), &channel, texts)).await;
        match said {
            Ok(Ok(open)) => connection = Some(open),
            Ok(Err(error)) => tracing::debug!(%error, "the other instances are not told"),
            Err(_) => tracing::debug!("the other instances are not told in time"),
        }
    }
}

async fn say(
    url: &PostgresUrl,
    connection: Option<PgConnection>,
    channel: &str,
    texts: Vec<String>,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => {
            let mut connection = super::connect(url).await?;
            // Nothing of it is kept, so nothing has to be on disk.
            sqlx::raw_sql("SET synchronous_commit = off").execute(&mut connection).await?;
            connection
        }
    };
    sqlx::query("SELECT pg_notify($1, said) FROM unnest($2::text[]) AS said")
        .bind(channel)
        .bind(texts)
        .execute(&mut connection)
        .await?;
    Ok(connection)
}
