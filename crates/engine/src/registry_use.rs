//! Registries as the engine sees them: the administrator's settings, and what is asked of them
//! beyond pulls.

use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::image_use::failed;
use gamut_image::{
    Credentials, Distribution, LoggedIn, Platform, Progress, PullOptions, Pushed, RegistryOptions,
    RegistrySettings, SearchResult,
};
use gamut_spec::reference::Reference;
use std::sync::Arc;

impl Engine {
    /// What `registries.json` says now: it is read for every use, so that a change counts from the
    /// next one on.
    ///
    /// # Errors
    /// If it cannot be read or is malformed; the message names the place.
    pub fn registry_settings(&self) -> Result<Arc<RegistrySettings>> {
        RegistrySettings::load(&self.options.registries)
            .map(Arc::new)
            .map_err(|error| failed(&error))
    }

    fn registry_options(&self, credentials: Option<Credentials>) -> Result<RegistryOptions> {
        Ok(RegistryOptions {
            credentials,
            settings: self.registry_settings()?,
            ..RegistryOptions::default()
        })
    }

    /// Sends an image to the registry that its name tells. With `platform`, it must be of that.
    ///
    /// # Errors
    /// `NotFound` if there is no such image, or of another platform; what the registry or the network said.
    pub fn push_image(
        &self,
        _caller: &Caller,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: Option<Credentials>,
        progress: &dyn Progress,
    ) -> Result<Pushed> {
        if platform.is_some() {
            self.images
                .get(&reference.to_string(), platform)
                .map_err(|error| failed(&error))?;
        }
        let options = self.registry_options(credentials)?;
        let pushed = self
            .images
            .push(reference, &options, progress)
            .map_err(|error| failed(&error))?;
        self.image_event("push", &reference.familiar(), &reference.familiar_name());
        Ok(pushed)
    }

    /// The names with tags that images have in a repository, to be pushed all.
    ///
    /// # Errors
    /// `NotFound` if there are none.
    pub fn tags_of(&self, repository: &Reference) -> Result<Vec<Reference>> {
        let listed = self.images.list().map_err(|error| failed(&error))?;
        let mut tags: Vec<Reference> = listed
            .iter()
            .flat_map(|image| &image.repo_tags)
            .filter_map(|name| Reference::parse(name).ok())
            .filter(|name| {
                name.registry() == repository.registry()
                    && name.repository() == repository.repository()
            })
            .collect();
        tags.sort_by_key(Reference::familiar);
        if tags.is_empty() {
            return Err(Error::new(
                gamut_spec::error::ErrorKind::NotFound,
                format!(
                    "An image does not exist locally with the tag: {}",
                    repository.familiar_name()
                ),
            ));
        }
        Ok(tags)
    }

    /// Checks credentials with a registry.
    ///
    /// # Errors
    /// `Unauthorized` if it does not take them.
    pub fn login(&self, server: &str, credentials: Credentials) -> Result<LoggedIn> {
        let options = self.registry_options(Some(credentials))?;
        gamut_image::login(server, &options).map_err(|error| failed(&error))
    }

    /// Searches the registry that the term begins with, or Docker Hub.
    ///
    /// # Errors
    /// If it cannot be reached or has no search.
    pub fn search_images(
        &self,
        term: &str,
        limit: usize,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>> {
        let options = self.registry_options(credentials)?;
        gamut_image::search(term, limit, &options).map_err(|error| failed(&error))
    }

    /// What a registry says of an image, without pulling it.
    ///
    /// # Errors
    /// What the registry or the network said.
    pub fn distribution(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Distribution> {
        let options = PullOptions {
            credentials,
            settings: self.registry_settings()?,
            ..PullOptions::default()
        };
        Distribution::inspect(reference, &options).map_err(|error| failed(&error))
    }
}
