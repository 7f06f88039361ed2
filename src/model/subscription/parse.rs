//! Reads subscriptions from their REST and TOML forms.
