//! Application data: what the program gives its runtime at the start, and its tasks take as parameters.
//!
//! A runtime has one value of each type. The runtime holds the value in an `Arc`, and every run gets a clone of that. Nothing is
//! kept in statics, so two runtimes of one process, or the runtimes of two tests, have values of their own.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{Context, TaskError};

/// A value that the program has given to the runtime, as a parameter of a task: a connection pool, a client, settings.
/// actix-web has the same word for the same thing.
///
/// A parameter of this type is no argument: it does not travel in the message, and callers of `delay` and `s` leave it
/// out. [`Builder::data`](crate::Builder::data) gives the value. A program whose tasks take data that nobody gave does not
/// start. Cloning is cheap, because all clones share one value.
///
/// ```standalone_crate
/// use celeriac::task::Data;
/// use celeriac::{Celeriac, task};
///
/// struct Mailer {
///     sender: String,
/// }
///
/// #[task]
/// async fn greet(mailer: Data<Mailer>, to: String) -> String {
///     format!("{} greets {to}", mailer.sender)
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mailer = Mailer { sender: "shop@example.org".to_owned() };
/// let celeriac = Celeriac::builder().in_memory().data(mailer).start().await?;
/// let greeting = greet::delay("Ada".to_owned()).await?;
/// assert_eq!(greeting.get(std::time::Duration::from_secs(60)).await?, "shop@example.org greets Ada");
/// celeriac.shutdown().await?;
///
/// // A test of the function itself makes the value.
/// let mailer = Data::new(Mailer { sender: "me".to_owned() });
/// assert_eq!(greet(mailer, "you".to_owned()).await, "me greets you");
/// # Ok(()) }
/// ```
pub struct Data<T: ?Sized>(Arc<T>);

impl<T> Data<T> {
    /// Makes data of a value. To share a value that is in an `Arc` already, use `Data::from`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: ?Sized> Data<T> {
    /// The shared value, for code that takes an `Arc`.
    pub fn into_inner(self) -> Arc<T> {
        self.0
    }
}

impl<T: Send + Sync + 'static> Data<T> {
    /// What a task with such a parameter needs. `#[task]` uses it.
    #[doc(hidden)]
    pub const NEEDED: NeededData = NeededData { id: TypeId::of::<T>(), name: std::any::type_name::<T> };

    /// The runtime's value for a parameter of a task. `#[task]` calls it.
    ///
    /// # Errors
    /// The runtime has no value of this type. The run fails for good, because another attempt would not help.
    #[doc(hidden)]
    pub fn of(context: &Context) -> Result<Self, TaskError> {
        context.data().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            TaskError::permanent(format!(
                "the task takes `Data<{name}>`, and its runtime has no such data: give it with `Celeriac::builder().data(..)`"
            ))
        })
    }
}

impl<T: ?Sized> From<Arc<T>> for Data<T> {
    fn from(value: Arc<T>) -> Self {
        Self(value)
    }
}

impl<T: ?Sized> Clone for Data<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Deref for Data<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Data<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Data").field(&&*self.0).finish()
    }
}

/// The type of a value that a task takes as [`Data`].
#[derive(Clone, Copy)]
pub struct NeededData {
    id: TypeId,
    name: fn() -> &'static str,
}

impl NeededData {
    /// The name of the type, as the compiler spells it.
    pub fn type_name(&self) -> &'static str {
        (self.name)()
    }
}

/// The values of a runtime, by type.
#[derive(Clone, Default)]
pub(crate) struct DataMap(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl DataMap {
    /// Adds a value. It takes the place of another one of its type.
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, Data(value): Data<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    /// The value of a type.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Data<T>> {
        let value = Arc::clone(self.0.get(&TypeId::of::<T>())?);
        value.downcast::<T>().ok().map(Data)
    }

    /// Whether there is a value for this need.
    pub(crate) fn has(&self, needed: &NeededData) -> bool {
        self.0.contains_key(&needed.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_value_and_the_last_one_stays() {
        let mut data = DataMap::default();
        data.insert(Data::new(1_u8));
        data.insert(Data::new("text".to_owned()));
        data.insert(Data::new(2_u8));
        assert_eq!(data.get::<u8>().as_deref(), Some(&2));
        assert_eq!(data.get::<String>().as_deref().map(String::as_str), Some("text"));
        assert!(data.get::<u16>().is_none());
        assert!(data.has(&Data::<u8>::NEEDED) && !data.has(&Data::<u16>::NEEDED));
        assert_eq!(Data::<u8>::NEEDED.type_name(), "u8");
    }

    #[test]
    fn a_run_without_the_data_fails_for_good_and_says_what_to_do() {
        let error = Data::<u8>::of(&Context::detached()).unwrap_err().to_string();
        assert!(error.contains("`Data<u8>`") && error.contains("builder().data("), "{error}");
    }
}
