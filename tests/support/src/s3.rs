//! A server that speaks S3, with its buckets in memory: moto's, which AWS's own client libraries are tested against.

use super::free_port;
use super::home::Home;
use super::process::{Process, run};
use super::python::Python;

/// A running server.
pub struct S3 {
    _process: Process,
    _home: Home,
    port: u16,
}

impl S3 {
    /// Starts it with one empty bucket.
    pub fn start(bucket: &str) -> Self {
        let python = Python::with_moto();
        let (home, port) = (Home::new("s3"), free_port());
        let mut process = Process::start("moto's S3", python.interpreter(), home.join("log"), |command| {
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        });
        process.await_condition("it answers", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        let server = Self { _process: process, _home: home, port };
        server.client(bucket, "s3.create_bucket(Bucket=bucket)");
        server
    }

    /// The keys in a bucket and how long each object is, as another client sees them.
    pub fn list(&self, bucket: &str) -> Vec<(String, u64)> {
        let listed = self.client(
            bucket,
            "for o in s3.list_objects_v2(Bucket=bucket).get('Contents', []): print(o['Size'], o['Key'])",
        );
        let row = |line: &str| {
            let (size, key) = line.split_once(' ').expect("a size and a key");
            (key.to_owned(), size.parse().expect("a size"))
        };
        listed.lines().map(row).collect()
    }

    /// How many uploads in parts are under way in a bucket.
    pub fn uploads(&self, bucket: &str) -> usize {
        let uploads =
            self.client(bucket, "print(len(s3.list_multipart_uploads(Bucket=bucket).get('Uploads', [])))");
        uploads.trim().parse().expect("a number")
    }

    /// What follows the `?` in `s3://bucket/prefix?…`.
    pub fn settings(&self) -> String {
        let port = self.port;
        format!(
            "endpoint=http://127.0.0.1:{port}&allow_http=true&region=us-east-1&access_key_id=test&secret_access_key=test"
        )
    }

    /// Runs a line of Python with AWS's own client.
    fn client(&self, bucket: &str, line: &str) -> String {
        let script = format!(
            "import boto3\nbucket = '{bucket}'\ns3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', \
             aws_access_key_id='test', aws_secret_access_key='test', region_name='us-east-1')\n{line}",
            self.port
        );
        run("boto3", Python::with_moto().interpreter(), |command| {
            command.args(["-c", &script]);
        })
        .expect_success("boto3")
    }
}
