package Smokeping::probes::SmallProbe;

=head1 301 Moved Permanently

This is a Smokeping probe module. Please use the command

C<smokeping -man Smokeping::probes::SmallProbe>

to view the documentation or the command

C<smokeping -makepod Smokeping::probes::SmallProbe>

to generate the POD document.

=cut

use strict;
use warnings;
use base qw(Smokeping::probes::basefork);
use Carp;

my $DEFAULT_BINARY = '/usr/bin/smallprobe';

sub pod_hash {
	return {
		name => <<'DOC',
Smokeping::probes::SmallProbe - measures small services with smallprobe(1)
DOC
		overview => <<'DOC',
Round-trip times of echo, daytime, qotd, chargen and time, over TCP, UDP and TLS.
DOC
		description => <<'DOC',
Each reply is checked; a wrong one counts as lost. Over TCP, echo uses one
connection, the other services a new connection for each request.
DOC
		authors => <<'DOC',
The authors of smallservd
DOC
		see_also => <<'DOC',
smallprobe(1), L<Smokeping::probes::basefork>
DOC
	};
}

sub new {
	my $proto = shift;
	my $class = ref($proto) || $proto;
	return $class->SUPER::new(@_);
}

sub ProbeDesc {
	my $self = shift;
	return 'Small services, by smallprobe(1)';
}

sub probevars {
	my $class = shift;
	return $class->_makevars($class->SUPER::probevars, {
		binary => {
			_doc => 'The location of smallprobe.',
			_default => $DEFAULT_BINARY,
			_example => $DEFAULT_BINARY,
			_sub => sub {
				my $path = shift;
				return -x $path ? undef : "ERROR: SmallProbe 'binary' $path is not executable";
			},
		},
	});
}

sub targetvars {
	my $class = shift;
	return $class->_makevars($class->SUPER::targetvars, {
		type => {
			_doc => 'The service: echo, daytime, qotd, chargen or time.',
			_re => 'echo|daytime|qotd|chargen|time',
			_default => 'echo',
			_example => 'daytime',
		},
		transport => {
			_doc => 'The transport: tcp, udp or tls.',
			_re => 'tcp|udp|tls',
			_default => 'tcp',
			_example => 'udp',
		},
		port => {
			_doc => "The port, by default the one that IANA assigned.",
			_re => '\d+',
			_example => 10007,
		},
		size => {
			_doc => 'The size of a request in bytes.',
			_re => '\d+',
			_example => 56,
		},
		interval => {
			_doc => 'The time between requests in seconds.',
			_re => '(\d*\.)?\d+',
			_default => '0.2',
			_example => '0.5',
		},
		waittime => {
			_doc => 'The time in seconds after which a request counts as lost.',
			_re => '(\d*\.)?\d+',
			_default => '2',
			_example => '1.5',
		},
		extraopts => {
			_doc => 'Further options of smallprobe, separated by blanks.',
			_example => '-6 --cacert /etc/ssl/lab.pem',
		},
	});
}

# Returns the command for TARGET, by its configuration.
sub command {
	my ($self, $target) = @_;
	my $vars = $target->{vars};
	my @command = ($self->{properties}{binary});

	push @command, '-c', $self->pings($target), '-i', $vars->{interval}, '-W', $vars->{waittime};
	push @command, '-p', $vars->{port} if defined $vars->{port};
	push @command, '-s', $vars->{size} if defined $vars->{size};
	push @command, '-u' if $vars->{transport} eq 'udp';
	push @command, '--tls' if $vars->{transport} eq 'tls';
	push @command, split ' ', $vars->{extraopts} if defined $vars->{extraopts};
	return (@command, $vars->{type}, $target->{addr});
}

# Returns the time of a correct reply's line in seconds, undef for any other line.
sub time_of {
	my $line = shift;
	return $line =~ / seq=\d+(?: ttl=\d+)? time=([0-9.]+) ms(?: late| reordered| after we ended our side| \(not closed by the server\))*$/
		? $1 / 1000 : undef;
}

sub pingone {
	my ($self, $target) = @_;
	my @command = $self->command($target);
	my @times;

	$self->do_debug("executing command @command") if $self->can('do_debug');
	my $pid = open(my $output, '-|', @command);
	if (!$pid) {
		carp("cannot run $command[0]: $!");
		return;
	}
	while (my $line = <$output>) {
		chomp $line;
		my $time = time_of($line);
		push @times, $time if defined $time;
	}
	close $output; # its status reports lost replies, which are missing in the list
	return map { sprintf '%.10e', $_ } sort { $a <=> $b } @times;
}

1;
