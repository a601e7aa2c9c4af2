//! The whole state as one JSON document, for people.

use crate::engine::Engine;
use serde_json::{Value, json};

impl Engine {
    /// Everything that the engine has on record, and what it sees of it.
    #[must_use]
    pub fn dump(&self) -> Value {
        let damaged: Vec<Value> = self
            .lock_damaged()
            .iter()
            .map(|damaged| json!({"path": damaged.path, "problem": damaged.problem}))
            .collect();
        let runs: Vec<Value> = self
            .levels
            .iter()
            .flat_map(|level| {
                let ids = level.list().unwrap_or_default();
                ids.into_iter().map(|id| {
                    let status = level.status(&id).ok().flatten();
                    json!({"level": level.level().as_str(), "id": id, "status": status})
                })
            })
            .collect();
        let images: Vec<Value> = self
            .images
            .list()
            .unwrap_or_default()
            .iter()
            .map(|image| json!({"id": image.id, "tags": image.repo_tags, "digests": image.repo_digests}))
            .collect();
        json!({
            "engine": {
                "id": self.id,
                "version": env!("CARGO_PKG_VERSION"),
                "dataRoot": self.options.data_root,
                "runRoot": self.options.run_root,
                "bootId": self.boot_id,
            },
            "containers": self.containers(),
            "sandboxes": runs,
            "volumes": self.volumes.list(),
            "networks": self.networks(),
            "images": images,
            "publishedPorts": self.networking.ports().list(),
            "damaged": damaged,
        })
    }
}
