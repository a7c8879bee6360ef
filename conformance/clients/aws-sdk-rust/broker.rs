//! A broker process of one test, and clients of it.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use aws_smithy_http_client::Builder;
use tempfile::TempDir;

/// A running broker, killed when the test is over.
pub(crate) struct Broker {
    child: Child,
    /// Removed when the test is over.
    _dir: TempDir,
    url: String,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let binary = binary();
        assert!(binary.exists(), "{} is not there: cargo build --bin tern", binary.display());
        let dir = tempfile::tempdir().unwrap();
        let ports_file = dir.path().join("ports.json");
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERN_") || name.starts_with("RABBITMQ_"))
        {
            command.env_remove(name);
        }
        command.current_dir(dir.path()).args(["--amqp-port", "0", "--stomp-port", "0", "--bind", "127.0.0.1"]);
        command.arg("--data").arg(dir.path().join("data")).arg("--ports-file").arg(&ports_file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "Server startup complete"), "the broker did not start");
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(ports_file).unwrap()).unwrap();
        Self { child, _dir: dir, url: format!("http://127.0.0.1:{}", ports["aws"]) }
    }

    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        let keys = aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test");
        let config = aws_sdk_sqs::Config::builder()
            .endpoint_url(&self.url)
            .region(aws_sdk_sqs::config::Region::new("eu-central-1"))
            .credentials_provider(keys)
            .http_client(Builder::new().build_http());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    pub(crate) fn sns(&self) -> aws_sdk_sns::Client {
        let keys = aws_sdk_sns::config::Credentials::new("test", "test", None, None, "test");
        let config = aws_sdk_sns::Config::builder()
            .endpoint_url(&self.url)
            .region(aws_sdk_sns::config::Region::new("eu-central-1"))
            .credentials_provider(keys)
            .http_client(Builder::new().build_http());
        aws_sdk_sns::Client::from_conf(config.build())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("TERN") {
        return binary.into();
    }
    // target/debug/deps/aws_sdk-...
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("tern")
}
