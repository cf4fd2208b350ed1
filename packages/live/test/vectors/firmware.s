# The mailbox firmware in assembly language, from address 0x100 on.
    mfmsr 5
    li 6,1
    sldi 6,6,63
    or 5,5,6
    mtmsrd 5
    li 31,0x4000
    li 16,0
    li 17,8
    li 18,16
    li 19,24
    li 20,32
    li 21,40
    li 22,48
    li 23,56
    std 3,24(31)
    ld 4,8(31)
    addi 4,4,1
    std 4,8(31)
    lwsync
    li 0,0
    std 0,0(31)
    lwsync
    std 4,16(31)
wait:
    ld 29,0(31)
    cmpdi 29,0
    beq wait
    lwsync
    li 30,0x5000
record:
    ldbrx 3,30,16
    ldbrx 4,30,17
    ldbrx 5,30,18
    ldbrx 6,30,19
    ldbrx 7,30,20
    ldbrx 8,30,21
    ldbrx 9,30,22
    ldbrx 10,30,23
    sc 1
    stdbrx 3,30,16
    stdbrx 4,30,17
    stdbrx 5,30,18
    stdbrx 6,30,19
    stdbrx 7,30,20
    stdbrx 8,30,21
    stdbrx 9,30,22
    stdbrx 10,30,23
    addi 30,30,64
    addi 29,29,-1
    cmpdi 29,0
    bne record
    lwsync
    std 29,0(31)
    b wait
