# The mailbox program for s390x, from address 0 on. QEMU's -kernel loads it there.
    .org 0
# The short PSW of the initial program load.
    .long 0x00080000, 0x80002000
# The program new PSW: 64 bits, no interrupts, no translation.
    .org 0x1d0
    .quad 0x0000000180000000, pgm
    .org 0x2000
start:
    lghi 9,0x3000
    larl 5,classes
    lctlg 6,6,0(5)
    lghi 0,1
    stg 0,56(9)
wait:
    lg 6,0(9)
    ltgr 6,6
    jz wait
    bcr 15,0
    lg 1,8(9)
    lg 2,16(9)
    lg 3,24(9)
    lg 4,32(9)
    sllg 6,6,3
    larl 7,table-8
    la 6,0(6,7)
    br 6
# Operation n is the n-th, from 1 on.
table:
    stsch 0(2)
    j done
    msch 0(2)
    j done
    diag 2,4,0x500
    j done
    ssch 0(2)
    jnz done
    tsch 0(3)
    jnz done
    tpi 0(4)
done:
    ipm 5
    srl 5,28
    llgfr 5,5
finish:
    stg 5,40(9)
    stg 2,48(9)
    lghi 0,0
    bcr 15,0
    stg 0,0(9)
    j wait
pgm:
    llgh 5,0x8e
    oilh 5,1
    j finish
    .balign 8
# Control register 6: all interruption subclasses, for TEST PENDING INTERRUPTION.
classes:
    .quad 0xff000000
