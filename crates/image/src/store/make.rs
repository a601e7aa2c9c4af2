//! Images that are made here, by `commit` and `import`, and do not come with a configuration.

use gamut_spec::reference::Reference;

use super::ImageStore;
use super::incoming::{Incoming, Naming};
use crate::changes;
use crate::config::ExecutionConfig;
use crate::digest::Digest;
use crate::error::Result;
use crate::pipeline::LayerWriter;

/// An image being made. Dropping it leaves the store as it was.
pub(crate) struct NewImage<'s> {
    pub(crate) incoming: Incoming<'s>,
    /// How the image is to be run.
    pub(crate) config: ExecutionConfig,
    names: Vec<String>,
}

impl<'s> NewImage<'s> {
    /// Begins an image called `name`, whose configuration is `config` edited by `changes`
    /// (Dockerfile instructions); `origin` says how it comes.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for a wrong change or name, before anything is written.
    pub(crate) fn begin(
        store: &'s ImageStore,
        origin: &'static str,
        name: Option<&Reference>,
        mut config: ExecutionConfig,
        changes: &[String],
    ) -> Result<Self> {
        for change in changes {
            changes::apply(&mut config, change)?;
        }
        let name = name.map(super::tag_name).transpose()?;
        Ok(Self {
            incoming: Incoming::new(store, origin)?,
            config,
            names: name.into_iter().collect(),
        })
    }

    /// Adds a layer all of whose bytes are in.
    pub(crate) fn add_layer(&mut self, writer: LayerWriter) -> Result<Digest> {
        let layer = writer.finish()?.wait()?;
        Ok(self.incoming.add_layer(layer).diff_id)
    }

    /// Keeps the image that `document`, its configuration file, describes. Returns its id.
    pub(crate) fn keep(mut self, document: &[u8]) -> Result<String> {
        let naming = Naming {
            names: self.names,
            ..Naming::default()
        };
        let id = self.incoming.add_image(document, naming)?;
        self.incoming.commit()?;
        Ok(id.to_string())
    }
}
