//! What replicas share beside frames, on Redis.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{RedisStore, keys};
use crate::{error::Error, store::vault::Vault};

#[async_trait]
impl Vault for RedisStore {
    async fn secret(&self, candidate: &str) -> Result<String, Error> {
        let call = self.lanes.call();
        call.run(|attempt| async move {
            let mut pipeline = redis::Pipeline::with_capacity(2);
            pipeline.cmd("SET").arg(keys::SECRET).arg(candidate).arg("NX").cmd("GET").arg(keys::SECRET);
            let [set, secret] = attempt.pair(&mut pipeline).await?;
            set?;
            Ok(redis::from_redis_value::<String>(secret?)?)
        })
        .await
    }

    async fn end_login(&self, login: Uuid, life: Duration) -> Result<(), Error> {
        let mut end = redis::cmd("SET");
        end.arg(keys::ended_login(login)).arg(1).arg("PX").arg(life.as_millis().max(1) as u64);
        let end = &end;
        self.lanes.call().run(|attempt| async move { attempt.command::<()>(end).await }).await
    }

    async fn is_ended(&self, login: Uuid) -> Result<bool, Error> {
        let mut find = redis::cmd("EXISTS");
        find.arg(keys::ended_login(login));
        let find = &find;
        self.lanes.call().run(|attempt| async move { attempt.command::<bool>(find).await }).await
    }
}
