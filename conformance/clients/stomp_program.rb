#!/usr/bin/env ruby
# Ruby's stomp against a broker, in STOMP 1.0, 1.1 and 1.2: connections, clients with receipts, failover.
#
# STOMP_HOST=.. STOMP_PORT=.. stomp_program.rb [TEXT in the names of checks]

require "securerandom"
require "socket"
require "stomp"
require "timeout"

HOST = ENV.fetch("STOMP_HOST", "127.0.0.1")
PORT = Integer(ENV.fetch("STOMP_PORT", "61613"))
VERSIONS = %w[1.0 1.1 1.2].freeze
CHECK_SECS_MAX = 30
QUIET_SECS = 0.3

$checks = []

def check(name, &run)
  $checks << [name, run]
end

def equal(got, expected)
  raise "#{got.inspect}, not #{expected.inspect}" unless got == expected
end

def name(prefix)
  "ruby.#{prefix}.#{SecureRandom.hex(4)}"
end

def options(version, headers = {})
  connect = version == "1.0" ? {} : { "accept-version" => version, "host" => "/" }
  {
    hosts: [{ login: "guest", passcode: "guest", host: HOST, port: PORT }],
    connect_headers: connect.merge(headers),
    reliable: false,
    logger: Stomp::NullLogger.new,
  }
end

def connection(version = "1.2", headers = {})
  opened = Stomp::Connection.new(options(version, headers))
  yield opened
ensure
  opened.disconnect if opened&.open?
end

# Receives the next frame that is no receipt.
def message(connection)
  loop do
    frame = connection.receive
    return frame unless frame.command == "RECEIPT"
  end
end

def nothing(connection)
  Timeout.timeout(QUIET_SECS) { raise "a frame: #{message(connection)}" }
rescue Timeout::Error
  nil
end

def subscribe(connection, destination, headers = {})
  id = headers.delete("id") || "one"
  connection.subscribe(destination, headers.merge("id" => id, "receipt" => "subscribed"), id)
  equal(connection.receive.headers["receipt-id"], "subscribed")
end

def acknowledge(connection, version, frame, how = :ack)
  case version
  when "1.0" then connection.public_send(how, frame.headers["message-id"])
  when "1.1" then connection.public_send(how, frame.headers["message-id"], "subscription" => frame.headers["subscription"])
  else connection.public_send(how, frame.headers["ack"])
  end
end

VERSIONS.each do |version|
  check "#{version}: send, receive, acknowledge, nothing comes twice" do
    target = "/queue/#{name("basic")}"
    connection(version) do |one|
      equal(one.protocol, version)
      subscribe(one, target, "ack" => "client")
      one.publish(target, "hello", "foo" => "bar", "persistent" => "true")
      frame = message(one)
      equal([frame.body, frame.headers["foo"], frame.headers["persistent"]], %w[hello bar true])
      acknowledge(one, version, frame)
    end
    connection(version) do |one|
      subscribe(one, target)
      nothing(one)
    end
  end

  check "#{version}: a transaction is sent by commit and forgotten by abort" do
    target = "/queue/#{name("transaction")}"
    connection(version) do |one|
      subscribe(one, target)
      one.begin("t1")
      one.publish(target, "kept", "transaction" => "t1")
      nothing(one)
      one.commit("t1")
      equal(message(one).body, "kept")
      one.begin("t2")
      one.publish(target, "dropped", "transaction" => "t2")
      one.abort("t2")
      nothing(one)
    end
  end
end

%w[1.1 1.2].each do |version|
  check "#{version}: nack puts a message back" do
    target = "/queue/#{name("nack")}"
    connection(version) do |one|
      subscribe(one, target, "ack" => "client-individual")
      one.publish(target, "again")
      acknowledge(one, version, message(one), :nack)
      frame = message(one)
      equal(frame.headers["redelivered"], "true")
      acknowledge(one, version, frame)
    end
  end

  check "#{version}: headers with every escape come back" do
    target = "/queue/#{name("escapes")}"
    # A backslash before a letter of an escape is misread by the gem itself.
    value = version == "1.2" ? "a:b\\x\nd\re" : "a:b\\x\nd"
    connection(version) do |one|
      subscribe(one, target)
      one.publish(target, "x", "odd" => value)
      odd = message(one).headers["odd"]
      equal(Array(odd).first, value)
    end
  end
end

check "ack:client acknowledges all before" do
  target = "/queue/#{name("client")}"
  connection do |one|
    subscribe(one, target, "ack" => "client")
    %w[a b c].each { |body| one.publish(target, body) }
    frames = Array.new(3) { message(one) }
    one.ack(frames[1].headers["ack"], "receipt" => "acknowledged")
    equal(one.receive.headers["receipt-id"], "acknowledged")
  end
  connection do |one|
    subscribe(one, target)
    equal(message(one).body, "c")
    nothing(one)
  end
end

check "octets of every value, and a body of 2 MiB" do
  target = "/queue/#{name("binary")}"
  connection do |one|
    subscribe(one, target)
    [(0..255).to_a.pack("C*"), "0123456789abcdef" * (1 << 17)].each do |body|
      one.publish(target, body)
      equal(message(one).body.b == body.b, true)
    end
  end
end

check "a client's receipts arrive, and its messages in order" do
  target = "/queue/#{name("client")}"
  client = Stomp::Client.new(options("1.2"))
  bodies = Queue.new
  receipts = Queue.new
  client.subscribe(target, { "ack" => "client", "id" => "one", "prefetch-count" => "10" }) do |frame|
    bodies << frame.body
    client.acknowledge(frame)
  end
  200.times { |number| client.publish(target, number.to_s) { |receipt| receipts << receipt.headers["receipt-id"] } }
  equal(Array.new(200) { bodies.pop }, (0...200).map(&:to_s))
  equal(Array.new(200) { receipts.pop }.uniq.size, 200)
  client.close
end

check "a request and its answer through a temp queue" do
  target = "/queue/#{name("rpc")}"
  connection do |one|
    subscribe(one, target)
    one.publish(target, "question", "reply-to" => "/temp-queue/answers", "correlation-id" => "7")
    asked = message(one)
    one.publish(asked.headers["reply-to"], "answer", "correlation-id" => asked.headers["correlation-id"])
    answer = message(one)
    equal([answer.body, answer.headers["subscription"]], ["answer", "/temp-queue/answers"])
  end
end

check "a durable subscription gets what was sent meanwhile" do
  topic = "/topic/#{name("durable")}"
  headers = { "id" => "mine", "durable" => "true", "auto-delete" => "false" }
  connection { |one| subscribe(one, topic, headers.dup) }
  connection { |one| one.publish(topic, "meanwhile", "persistent" => "true") }
  connection do |one|
    subscribe(one, topic, headers.dup)
    equal(message(one).body, "meanwhile")
    one.unsubscribe(topic, { "id" => "mine", "durable" => "true" }, "mine")
  end
end

check "heart-beats keep a quiet connection" do
  connection("1.2", "heart-beat" => "1000,1000") do |one|
    sleep 4.5
    equal([one.open?, one.hbrecv_count.positive?, one.hbsend_count.positive?], [true, true, true])
  end
end

check "an error leaves the connection open" do
  connection do |one|
    one.publish("/nowhere/at/all", "x")
    frame = one.receive
    equal([frame.command, frame.headers["message"]], ["ERROR", "Unknown destination"])
    one.begin("t", "receipt" => "alive")
    equal(one.receive.headers["receipt-id"], "alive")
  end
end

check "a host that refuses is passed over" do
  nobody = TCPServer.new("127.0.0.1", 0)
  refused = nobody.addr[1]
  nobody.close
  target = "/queue/#{name("failover")}"
  hosts = [refused, PORT].map { |port| { login: "guest", passcode: "guest", host: HOST, port: port } }
  both = options("1.2").merge(hosts: hosts, reliable: true, randomize: false, initial_reconnect_delay: 0.01)
  one = Stomp::Connection.new(both)
  subscribe(one, target)
  one.publish(target, "found")
  equal(message(one).body, "found")
  one.disconnect
end

failed = 0
$checks.each do |what, run|
  next unless what.include?(ARGV.fetch(0, ""))

  begin
    Timeout.timeout(CHECK_SECS_MAX) { run.call }
    puts "ok #{what}"
  rescue StandardError => e
    failed += 1
    puts "not ok #{what}: #{e.class} #{e.message.gsub(/\s+/, " ")}"
    warn e.backtrace.first(5)
  end
  $stdout.flush
end
exit(failed.zero? ? 0 : 1)
