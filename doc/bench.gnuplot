# Draws doc/bench.svg, the picture of README.md, from the figures of doc/performance.md:
#
#     gnuplot doc/bench.gnuplot
set terminal svg size 1000,480 font "sans,14" background "white"
set output "doc/bench.svg"
set datafile missing "-"

$cost << END
operation smallservd xinetd openbsd-inetd inetutils-inetd nginx socat ncat
"TCP 64 B, 50 connections" 1.00 1.7 1.7 1.7 - 3.0 4.0
"TCP 4 KiB, 50 connections" 1.015 4.0 1.6 1.6 - 2.8 3.9
"TCP 64 B, 1000 connections" 1.01 2.4 2.5 2.3 - 4.3 5.3
"TCP bulk, 4 connections" 1.00 9.7 3.9 3.2 - 7.4 -
"connect, echo, close" 0.94 13 16 6.7 - 16 18
"connect, daytime, close" 0.92 1.02 1.03 1.05 1.11 109 104
"UDP 64 B, 50 flows" 1.03 - - 1.9 - - -
"UDP 64 B, one in flight" 1.035 - - 1.05 - 1.7 2.3
"UDP 1200 B, GSO batches of 16" 1.04 - - 15 - - -
END

set title "Server CPU time per operation; 1 = plain epoll or recvmmsg loop; logarithmic, less is better"
set logscale x
set xrange [0.7:160]
set xtics (1, 2, 5, 10, 20, 50, 100)
set yrange [8.6:-0.6]
set ytics scale 0
set grid xtics ytics linecolor "#dddddd"
set border 3
set tics nomirror
set key outside right center reverse Left samplen 1
set arrow from first 1, graph 0 to first 1, graph 1 nohead linewidth 1.5 linecolor "black"
array colour[7] = ["#0b5394", "#e69138", "#38761d", "#a64d79", "#666666", "#cc4125", "#bf9000"]
array shape[7] = [13, 4, 8, 10, 6, 2, 1]
plot for [i=8:2:-1] $cost using i:0:ytic(1) title columnheader(i) with points \
	pointtype shape[i - 1] pointsize (i == 2 ? 0.9 : 1) linewidth 2 linecolor rgb colour[i - 1]
