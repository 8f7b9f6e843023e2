//! What replicas share beside frames, on Redis.

use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;
use uuid::Uuid;

use super::{
    RedisStore,
    keys::{self, Keys},
    lanes::Attempt,
};
use crate::{error::Error, session::SessionId, store::vault::Vault};

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

    async fn hold(&self, session: &SessionId, holder: Uuid, life: Duration) -> Result<Option<Uuid>, Error> {
        let mut set = redis::cmd("SET");
        set.arg(Keys(session).holder()).arg(holder.to_string()).arg("GET").arg("PX").arg(life.as_millis() as u64);
        self.read_holder(&set).await
    }

    async fn holder(&self, session: &SessionId, life: Duration) -> Result<Option<Uuid>, Error> {
        let mut get = redis::cmd("GETEX");
        get.arg(Keys(session).holder()).arg("PX").arg(life.as_millis() as u64);
        self.read_holder(&get).await
    }
}

impl RedisStore {
    async fn read_holder(&self, command: &Cmd) -> Result<Option<Uuid>, Error> {
        let read = |attempt: Attempt| async move { attempt.command::<Option<String>>(command).await };
        Ok(self.lanes.call().run(read).await?.and_then(|holder| holder.parse().ok()))
    }
}
