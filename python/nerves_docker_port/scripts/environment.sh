# shellcheck shell=bash
# Defines a function with which a script runs the user's programs in the environment of the container.
#
# ndp_read_environment FILE: set the array ndp_with to the first words of a command that runs a program in the
# environment that keep_environment.sh has saved in FILE, and ndp_user_home to the value of HOME in it. If a variable is
# in the file twice, the last value counts.
#
# bash could not set exactly these variables: it adds some, and does not allow each name. env(1) could, but it takes them
# as arguments, which every user of the machine can see, and a value can be a secret. perl is in every builder image,
# because Buildroot needs it. If there is no such program, it says so in the words of env(1), which
# record/signs.py knows.
ndp_read_environment() {
  # shellcheck disable=SC2016,SC2034 # perl expands these, and other scripts use the array
  ndp_with=(/usr/bin/perl -e '
    open my $file, "<", shift or die "the saved environment cannot be read: $!\n";
    %ENV = ();
    $/ = "\0";
    while (<$file>) {
      chomp;
      $ENV{$1} = $2 if /^([^=]+)=(.*)/s;
    }
    close $file;
    exec { $ARGV[0] } @ARGV;
    my $number = $! + 0;
    print STDERR "env: \x27$ARGV[0]\x27: $!\n";
    exit($number == 2 ? 127 : 126);
  ' "$1")
  ndp_user_home=
  while IFS= read -r -d '' ndp_variable; do
    # shellcheck disable=SC2034 # shell.sh uses it.
    case $ndp_variable in HOME=*) ndp_user_home=${ndp_variable#HOME=} ;; esac
  done <"$1"
}
