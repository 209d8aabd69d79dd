"""The report's style sheet: light or dark as the reader's system is, from phone to desk."""

CSS = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--line:#d9dbe0;--page:#fcfcfd;
--card:#fff;--accent:#2f6fb2;--warn:#8a5a00;--warnbg:#fff6e0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9ba1a6;--line:#33373c;--page:#16181a;
--card:#1d2023;--accent:#7fb2e5;--warn:#f1c36b;--warnbg:#2b2415}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0;letter-spacing:-.02em}
h2{font-size:1.3rem;margin:3rem 0 .75rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:1.75rem 0 .5rem}
p{max-width:46rem;margin:.5rem 0}
.soft,figcaption{color:var(--soft)}
.notice{background:var(--warnbg);color:var(--warn);border-radius:8px;padding:.7rem 1rem;
margin:1.25rem 0;max-width:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;
margin:1.5rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.5rem;line-height:1.3;font-weight:650;
font-variant-numeric:tabular-nums}
.tile span{display:block;font-size:.82rem;color:var(--soft);line-height:1.35}
.videos{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:1rem}
figure{margin:0}
figcaption{font-size:.87rem;line-height:1.45;padding-top:.4rem}
.videos img{width:100%;display:block;border-radius:8px;background:#000}
.plot{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem}
.plot svg{width:100%;height:auto;display:block;max-height:27rem}
.plot.wide svg{max-height:none;max-width:58rem;margin:auto}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:1rem;
margin-bottom:1rem}
.pair p:first-child{margin-top:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;margin:.25rem 0 1rem;min-width:min(32rem,100%)}
th,td{text-align:left;padding:.38rem 1.5rem .38rem 0;border-bottom:1px solid var(--line);
vertical-align:top;font-variant-numeric:tabular-nums;white-space:nowrap}
thead th{font-weight:600;color:var(--soft);font-size:.82rem}
tbody th{font-weight:500}
td small{color:var(--soft);font-size:.82rem;margin-left:.35rem}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
details summary{cursor:pointer;color:var(--accent);margin:.5rem 0}
@media print{details{display:block}.plot,.tile{break-inside:avoid}}
"""
