# smokeping.pl: calls plugins/SmallProbe.pm as smokeping does, with smokeping's own classes if they are installed.
#
#     smokeping.pl own                            exits 0 if they are in @INC or below SMALLSERVD_SMOKEPING
#     smokeping.pl measure TYPE TRANSPORT TARGET  prints the seconds of three pings, a line each
#     smokeping.pl check FILE                     smokeping --check of a configuration
#     smokeping.pl compiles                       loads the module
#     smokeping.pl makepod                        smokeping --makepod of the module
#
# The module is found as Smokeping::probes::SmallProbe in @INC. Without smokeping, `measure` uses a substitute class.

use strict;
use warnings;

# Substitutes for libraries that smokeping uses for graphs, web pages and SNMP but not in a probe; found last in @INC.
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

# Substitute for smokeping's own class with the methods that the module uses.
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

sub substitute {
	my (undef, $file) = @_;
	my $text = $file eq 'Smokeping/probes/basefork.pm' ? $base_class : $other_libraries{$file};
	return unless defined $text;
	$text .= "\n1;\n";
	open(my $source, '<', \$text) or die "$file: $!";
	return $source;
}

unshift @INC, $ENV{SMALLSERVD_SMOKEPING} if $ENV{SMALLSERVD_SMOKEPING};
my $own = grep { -e "$_/Smokeping/probes/basefork.pm" } @INC;
push @INC, \&substitute;

# Returns the defaults that the module declares.
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
die "smokeping.pl: unknown command\n" unless $verb && $verbs{$verb};
$verbs{$verb}->(@arguments);
