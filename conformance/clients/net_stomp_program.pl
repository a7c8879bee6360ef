#!/usr/bin/env perl
# Perl's Net::Stomp against a broker: STOMP 1.0 as its scripts speak it.
#
# STOMP_HOST=.. STOMP_PORT=.. net_stomp_program.pl [TEXT in the names of checks]

use strict;
use warnings;

use IO::Socket::INET;
use Net::Stomp;
use Net::Stomp::Frame;

my $host = $ENV{STOMP_HOST} // '127.0.0.1';
my $port = $ENV{STOMP_PORT} // 61613;
my $wait_secs = 10;
my $quiet_secs = 0.3;
my $only = shift @ARGV // '';
my $failed = 0;
$| = 1;

sub check {
    my ($name, $run) = @_;
    return if index($name, $only) < 0;
    my $done = eval {
        local $SIG{ALRM} = sub { die "no end\n" };
        alarm 30;
        $run->();
        alarm 0;
        1;
    };
    my $error = $@;
    alarm 0;
    print "ok $name\n" and return if $done;
    $failed++;
    $error =~ s/\s+/ /g;
    print "not ok $name: $error\n";
}

sub equal {
    my ($got, $expected) = @_;
    $got //= 'nothing';
    die "$got, not $expected\n" if $got ne $expected;
}

sub name { return "perl.$_[0]." . sprintf '%08x', int rand 2**32 }

sub client {
    my (%headers) = @_;
    my $client = Net::Stomp->new({ hostname => $host, port => $port });
    my $connected = $client->connect({ login => 'guest', passcode => 'guest', %headers });
    equal($connected->command, 'CONNECTED');
    return $client;
}

sub message {
    my ($client) = @_;
    die "no message\n" if !$client->can_read({ timeout => $wait_secs });
    my $frame = $client->receive_frame;
    die $frame->command . "\n" if $frame->command ne 'MESSAGE';
    return $frame;
}

sub nothing {
    my ($client) = @_;
    return if !$client->can_read({ timeout => $quiet_secs });
    my $frame = $client->receive_frame({ timeout => $quiet_secs });
    die 'a frame: ' . $frame->as_string if $frame;
}

check 'send, receive, acknowledge, nothing comes twice' => sub {
    my $target = '/queue/' . name('basic');
    my $client = client();
    $client->subscribe({ destination => $target, ack => 'client' });
    $client->send({ destination => $target, body => 'hello', foo => 'bar', persistent => 'true' });
    my $frame = message($client);
    equal($frame->body, 'hello');
    equal($frame->headers->{foo}, 'bar');
    $client->ack({ frame => $frame });
    $client->disconnect;
    $client = client();
    $client->subscribe({ destination => $target, ack => 'auto' });
    nothing($client);
    $client->disconnect;
};

check 'what was not acknowledged comes again' => sub {
    my $target = '/queue/' . name('again');
    for my $redelivered ('false', 'true') {
        my $client = client();
        $client->subscribe({ destination => $target, ack => 'client' });
        $client->send({ destination => $target, body => 'again' }) if $redelivered eq 'false';
        equal(message($client)->headers->{redelivered}, $redelivered);
        $client->disconnect;
    }
};

check 'nack puts a message back' => sub {
    my $target = '/queue/' . name('nack');
    my $client = client();
    $client->subscribe({ destination => $target, ack => 'client' });
    $client->send({ destination => $target, body => 'x' });
    $client->nack({ frame => message($client) });
    my $frame = message($client);
    equal($frame->headers->{redelivered}, 'true');
    $client->ack({ frame => $frame });
    $client->disconnect;
};

sub say_of {
    my ($client, $command, $transaction) = @_;
    $client->send_frame(Net::Stomp::Frame->new({ command => $command, headers => { transaction => $transaction } }));
}

# `send_transactional` waits for a receipt that, as with RabbitMQ, comes after the commit that it has not sent.
check 'sends with a receipt, and in a transaction' => sub {
    my $target = '/queue/' . name('receipt');
    my $client = client();
    equal($client->send_with_receipt({ destination => $target, body => 'one' }) ? 'sent' : 'lost', 'sent');
    $client->subscribe({ destination => $target, ack => 'auto' });
    equal(message($client)->body, 'one');
    say_of($client, 'BEGIN', 't');
    $client->send({ destination => $target, body => 'two', transaction => 't' });
    nothing($client);
    say_of($client, 'COMMIT', 't');
    equal(message($client)->body, 'two');
    $client->disconnect;
};

check 'a transaction is forgotten by abort' => sub {
    my $target = '/queue/' . name('abort');
    my $client = client();
    $client->subscribe({ destination => $target, ack => 'auto' });
    say_of($client, 'BEGIN', 't');
    $client->send({ destination => $target, body => 'dropped', transaction => 't' });
    say_of($client, 'ABORT', 't');
    nothing($client);
    $client->disconnect;
};

check 'octets of every value, and a body of 1 MiB' => sub {
    my $target = '/queue/' . name('binary');
    my $client = client();
    $client->subscribe({ destination => $target, ack => 'auto' });
    for my $body (join('', map { chr } 0 .. 255), '0123456789abcdef' x (1 << 16)) {
        $client->send({ destination => $target, body => $body, bytes_message => 1 });
        equal(message($client)->body eq $body ? 'same' : 'another', 'same');
    }
    $client->disconnect;
};

check 'a request and its answer through a temp queue' => sub {
    my $target = '/queue/' . name('rpc');
    my $client = client();
    $client->subscribe({ destination => $target, ack => 'auto' });
    $client->send({ destination => $target, body => 'question', 'reply-to' => '/temp-queue/answers' });
    $client->send({ destination => message($client)->headers->{'reply-to'}, body => 'answer' });
    my $answer = message($client);
    equal($answer->body . ' ' . $answer->headers->{subscription}, 'answer /temp-queue/answers');
    $client->disconnect;
};

check 'a durable subscription gets what was sent meanwhile' => sub {
    my $topic = '/topic/' . name('durable');
    my %headers = (destination => $topic, id => 'mine', durable => 'true', 'auto-delete' => 'false', ack => 'auto');
    my $client = client();
    $client->subscribe({%headers});
    $client->disconnect;
    $client = client();
    $client->send_with_receipt({ destination => $topic, body => 'meanwhile', persistent => 'true' });
    $client->disconnect;
    $client = client();
    $client->subscribe({%headers});
    equal(message($client)->body, 'meanwhile');
    $client->unsubscribe({ destination => $topic, id => 'mine', durable => 'true' });
    $client->disconnect;
};

check 'an error leaves the connection open' => sub {
    my $client = client();
    $client->send({ destination => '/nowhere/at/all', body => 'x' });
    my $frame = $client->receive_frame;
    equal($frame->command . ' ' . $frame->headers->{message}, 'ERROR Unknown destination');
    my $target = '/queue/' . name('open');
    $client->subscribe({ destination => $target, ack => 'auto' });
    $client->send({ destination => $target, body => 'still here' });
    equal(message($client)->body, 'still here');
    $client->disconnect;
};

check 'a host that refuses is passed over' => sub {
    my $nobody = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "no socket\n";
    my $refused = $nobody->sockport;
    close $nobody;
    my @hosts = map { { hostname => $host, port => $_ } } $refused, $port;
    my $client = Net::Stomp->new({ hosts => \@hosts });
    equal($client->connect({ login => 'guest', passcode => 'guest' })->command, 'CONNECTED');
    $client->disconnect;
};

exit($failed ? 1 : 0);
