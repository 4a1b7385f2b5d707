# smokeping.pl: calls plugins/SmallProbe.pm as smokeping does, with smokeping's own classes where they are.
#
#     smokeping.pl own                            exit status 0: they are there, or below SMALLSERVD_SMOKEPING
#     smokeping.pl measure TYPE TRANSPORT TARGET  what three pings of a target came to, in seconds, a line each
#     smokeping.pl check FILE                     smokeping --check of a configuration
#     smokeping.pl compiles                       loads the module
#     smokeping.pl makepod                        smokeping --makepod of the module
#
# The module is found as Smokeping::probes::SmallProbe in @INC. Without smokeping `measure` goes by a class that stands in.

use strict;
use warnings;

# What smokeping draws, shows and asks for by SNMP with is no part of a probe: libraries of others, found last.
my %other_libraries = (
	'CGI.pm' => '',
	'Digest/HMAC_MD5.pm' => '',
	'LWP/UserAgent.pm' => '',
	'RRDs.pm' => 'package RRDs; sub create; sub error; sub fetch; sub first; sub graph; sub graphv; sub info; sub last;'
		. 'sub lastupdate; sub times; sub tune; sub update; sub xport;',
	'SNMP_Session.pm' => '',
	'SNMP_util.pm' => '',
	'URI/Escape.pm' => '',
);

# Stands in for smokeping's own class, of which the module uses only this.
my $base_class = <<'END';
	package Smokeping::probes::basefork;
	sub new { my ($class, $properties) = @_; return bless {properties => $properties}, $class }
	sub add { my ($self, $tree, $address) = @_; push @{$self->{added}}, {tree => $tree, vars => $tree, addr => $address} }
	sub ping { my $self = shift; $self->{rtts}{$_->{tree}} = [$self->pingone($_)] for @{$self->{added}} }
	sub pings { my $self = shift; return $self->{properties}{pings} }
	sub probevars { return {} }
	sub targetvars { return {} }
	sub _makevars { my ($class, $from, $to) = @_; return {%$from, %$to} }
END

sub stand_in {
	my (undef, $file) = @_;
	my $text = $file eq 'Smokeping/probes/basefork.pm' ? $base_class : $other_libraries{$file};
	return unless defined $text;
	$text .= "\n1;\n";
	open(my $source, '<', \$text) or die "$file: $!";
	return $source;
}

unshift @INC, $ENV{SMALLSERVD_SMOKEPING} if $ENV{SMALLSERVD_SMOKEPING};
my $own = grep { -e "$_/Smokeping/probes/basefork.pm" } @INC;
push @INC, \&stand_in;

# The defaults that the module declares.
sub defaults {
	my $vars = Smokeping::probes::SmallProbe->targetvars;
	return map { $_ => $vars->{$_}{_default} } grep { ref $vars->{$_} eq 'HASH' && exists $vars->{$_}{_default} } keys %$vars;
}

sub measure {
	my ($type, $transport, $address) = @_;
	require Smokeping::probes::SmallProbe;
	my %properties = (binary => $ENV{SMALLPROBE}, pings => 3, forks => 2, timeout => $ENV{DEADLINE});
	my $target = {defaults(), type => $type, transport => $transport, interval => 0.01, waittime => $ENV{DEADLINE}};
	my $probe = Smokeping::probes::SmallProbe->new(\%properties, {}, 'SmallProbe');
	$probe->add($target, $address);
	$probe->ping;
	print "$_\n" for @{$probe->{rtts}{$target}};
}

sub smokeping {
	require Smokeping;
	my $file = shift;
	@ARGV = @_;
	Smokeping::main($file);
}

my ($verb, @arguments) = @ARGV;
my %verbs = (
	compiles => sub { require Smokeping::probes::SmallProbe },
	own => sub { exit !$own },
	measure => \&measure,
	check => sub { smokeping($arguments[0], '--check') },
	makepod => sub { smokeping('/dev/null', '--makepod=Smokeping::probes::SmallProbe') },
);
die "smokeping.pl: what is to be done?\n" unless $verb && $verbs{$verb};
$verbs{$verb}->(@arguments);
