<?xml version='1.0' encoding='UTF-8'?>
<!-- The proposal as a page. Named as the XSF's stylesheet is, so that the document finds either. -->
<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>
  <xsl:output method='html' encoding='UTF-8' indent='no' doctype-system='about:legacy-compat'/>
  <xsl:strip-space elements='xep header author revision remark section1 section2 section3 section4 ul ol dl di table tr'/>

  <xsl:template match='/xep'>
    <html lang='en'>
      <head>
        <meta charset='UTF-8'/>
        <meta name='viewport' content='width=device-width, initial-scale=1'/>
        <meta name='color-scheme' content='light dark'/>
        <title>XEP-<xsl:value-of select='header/number'/>: <xsl:value-of select='header/title'/></title>
        <style><xsl:value-of select='$style' disable-output-escaping='yes'/></style>
      </head>
      <body>
        <nav>
          <p class='brand'>XEP-<xsl:value-of select='header/number'/></p>
          <ol>
            <xsl:apply-templates select='section1' mode='contents'/>
          </ol>
        </nav>
        <main>
          <xsl:apply-templates select='header'/>
          <details class='contents'>
            <summary>Contents</summary>
            <ol>
              <xsl:apply-templates select='section1' mode='contents'/>
            </ol>
          </details>
          <xsl:apply-templates select='section1'/>
          <xsl:if test='//note'>
            <h2 id='notes'>Notes</h2>
            <ol class='notes'>
              <xsl:for-each select='//note'>
                <li id='note-{position()}'>
                  <xsl:apply-templates/>
                  <xsl:text> </xsl:text>
                  <a class='back' href='#ref-{position()}' title='Back to the text'>&#8617;</a>
                </li>
              </xsl:for-each>
            </ol>
          </xsl:if>
          <h2 id='legal'>Legal</h2>
          <xsl:for-each select='header/legal/*'>
            <p><xsl:apply-templates/></p>
          </xsl:for-each>
        </main>
      </body>
    </html>
  </xsl:template>

  <xsl:template match='header'>
    <header>
      <p class='status'><span><xsl:value-of select='status'/></span> <xsl:value-of select='type'/></p>
      <h1>XEP-<xsl:value-of select='number'/>: <xsl:value-of select='title'/></h1>
      <p class='abstract'><xsl:value-of select='abstract'/></p>
      <dl class='facts'>
        <dt><xsl:choose><xsl:when test='count(author) > 1'>Authors</xsl:when><xsl:otherwise>Author</xsl:otherwise></xsl:choose></dt>
        <xsl:for-each select='author'>
          <dd>
            <xsl:value-of select='firstname'/><xsl:text> </xsl:text><xsl:value-of select='surname'/>
            <xsl:if test='email'>, <a href='mailto:{email}'><xsl:value-of select='email'/></a></xsl:if>
          </dd>
        </xsl:for-each>
        <dt>Version</dt>
        <dd><xsl:value-of select='revision[1]/version'/> (<xsl:value-of select='revision[1]/date'/>)</dd>
        <dt>Depends on</dt>
        <dd>
          <xsl:for-each select='dependencies/spec'>
            <xsl:if test='position() > 1'>, </xsl:if>
            <xsl:value-of select='.'/>
          </xsl:for-each>
        </dd>
        <dt>Short name</dt>
        <dd><xsl:value-of select='shortname'/></dd>
        <dt>Approver</dt>
        <dd><xsl:value-of select='sig'/> SIG, <xsl:value-of select='approver'/></dd>
      </dl>
    </header>
  </xsl:template>

  <!-- The table of contents. -->
  <xsl:template match='section1 | section2' mode='contents'>
    <li>
      <a><xsl:attribute name='href'>#<xsl:call-template name='anchor'/></xsl:attribute><xsl:value-of select='@topic'/></a>
      <xsl:if test='self::section1 and section2'>
        <ol><xsl:apply-templates select='section2' mode='contents'/></ol>
      </xsl:if>
    </li>
  </xsl:template>

  <xsl:template name='anchor'>
    <xsl:choose>
      <xsl:when test='@anchor'><xsl:value-of select='@anchor'/></xsl:when>
      <xsl:otherwise><xsl:value-of select='generate-id()'/></xsl:otherwise>
    </xsl:choose>
  </xsl:template>

  <xsl:template match='section1 | section2 | section3 | section4'>
    <section>
      <xsl:attribute name='id'><xsl:call-template name='anchor'/></xsl:attribute>
      <xsl:element name='h{number(substring(local-name(), 8)) + 1}'>
        <span class='number'><xsl:number level='multiple' count='section1 | section2 | section3 | section4'/></span>
        <xsl:text> </xsl:text>
        <xsl:value-of select='@topic'/>
        <xsl:text> </xsl:text>
        <a class='here'>
          <xsl:attribute name='href'>#<xsl:call-template name='anchor'/></xsl:attribute>
          <xsl:attribute name='aria-label'>Link to this section</xsl:attribute>
          <xsl:text>#</xsl:text>
        </a>
      </xsl:element>
      <xsl:apply-templates/>
    </section>
  </xsl:template>

  <!-- Examples: one color for who asks, another for who answers. -->
  <xsl:template match='example'>
    <xsl:variable name='n'><xsl:number level='any' count='example'/></xsl:variable>
    <xsl:variable name='text' select='normalize-space(.)'/>
    <xsl:variable name='side'>
      <xsl:choose>
        <xsl:when test="starts-with($text, 'HTTP/')">answer</xsl:when>
        <xsl:when test='starts-with($text, "&lt;iq type=&apos;result")'>answer</xsl:when>
        <xsl:when test='starts-with($text, "&lt;iq type=&apos;error")'>answer</xsl:when>
        <xsl:otherwise>request</xsl:otherwise>
      </xsl:choose>
    </xsl:variable>
    <xsl:variable name='kind'>
      <xsl:choose>
        <xsl:when test="starts-with($text, '&lt;')">XMPP</xsl:when>
        <xsl:otherwise>HTTP</xsl:otherwise>
      </xsl:choose>
    </xsl:variable>
    <figure id='example-{$n}' class='{$side}'>
      <figcaption>
        <span>
          <a href='#example-{$n}'>Example <xsl:value-of select='$n'/></a>
          <xsl:text>. </xsl:text><xsl:value-of select='@caption'/>
        </span>
        <span class='kind'><xsl:value-of select='$kind'/></span>
      </figcaption>
      <pre tabindex='0'><xsl:call-template name='trimmed'/></pre>
    </figure>
  </xsl:template>

  <xsl:template match='code'>
    <pre tabindex='0'><xsl:call-template name='trimmed'/></pre>
  </xsl:template>

  <!-- Text without the line breaks around it. -->
  <xsl:template name='trimmed'>
    <xsl:param name='text' select='string(.)'/>
    <xsl:variable name='last' select='substring($text, string-length($text))'/>
    <xsl:choose>
      <xsl:when test="starts-with($text, '&#10;')">
        <xsl:call-template name='trimmed'>
          <xsl:with-param name='text' select='substring($text, 2)'/>
        </xsl:call-template>
      </xsl:when>
      <xsl:when test="$last = '&#10;' or $last = ' '">
        <xsl:call-template name='trimmed'>
          <xsl:with-param name='text' select='substring($text, 1, string-length($text) - 1)'/>
        </xsl:call-template>
      </xsl:when>
      <xsl:otherwise><xsl:value-of select='$text'/></xsl:otherwise>
    </xsl:choose>
  </xsl:template>

  <xsl:template match='table'>
    <div class='table'>
      <table>
        <xsl:if test='@caption'>
          <caption>Table <xsl:number level='any' count='table'/>. <xsl:value-of select='@caption'/></caption>
        </xsl:if>
        <xsl:apply-templates/>
      </table>
    </div>
  </xsl:template>

  <xsl:template match='di'><xsl:apply-templates/></xsl:template>
  <xsl:template match='tt'><code><xsl:apply-templates/></code></xsl:template>
  <xsl:template match='link'><a href='{@url}'><xsl:apply-templates/></a></xsl:template>
  <xsl:template match='note'>
    <xsl:variable name='n'><xsl:number level='any' count='note'/></xsl:variable>
    <sup id='ref-{$n}'><a href='#note-{$n}'><xsl:value-of select='$n'/></a></sup>
  </xsl:template>

  <xsl:template match='p | ul | ol | li | dl | dt | dd | tr | em | strong | dfn | cite | br | div'>
    <xsl:element name='{local-name()}'>
      <xsl:copy-of select='@start | @class'/>
      <xsl:apply-templates/>
    </xsl:element>
  </xsl:template>
  <xsl:template match='th | td'>
    <xsl:element name='{local-name()}'>
      <xsl:copy-of select='@colspan | @rowspan'/>
      <xsl:apply-templates/>
    </xsl:element>
  </xsl:template>
  <xsl:template match='span'><xsl:apply-templates/></xsl:template>

  <xsl:variable name='style'>
    :root {
      color-scheme: light dark;
      --ground: #fbfaf8; --paper: #ffffff; --ink: #22252b; --soft: #5d6470; --line: #e1dfd9;
      --link: #0b5cad; --ask: #0b6e99; --tell: #6b4fa0; --mark: #8a5a00; --tint: #f4f2ee;
    }
    @media (prefers-color-scheme: dark) {
      :root {
        --ground: #16181c; --paper: #1c1f24; --ink: #dfe1e5; --soft: #9aa1ac; --line: #31353c;
        --link: #7db7f0; --ask: #5cb8dd; --tell: #b49ae6; --mark: #e0b060; --tint: #22262c;
      }
    }
    * { box-sizing: border-box; }
    html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
    body {
      margin: 0; background: var(--ground); color: var(--ink);
      font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
      display: grid; grid-template-columns: minmax(0, 1fr);
    }
    main { max-width: 50rem; width: 100%; margin: 0 auto; padding: 2rem 1.25rem 6rem; overflow-wrap: break-word; }
    nav { display: none; }
    @media (min-width: 75rem) {
      body { grid-template-columns: 20rem minmax(0, 1fr); }
      nav {
        display: block; position: sticky; top: 0; height: 100vh; overflow-y: auto;
        padding: 2rem 1rem 2rem 1.5rem; border-right: 1px solid var(--line); font-size: .875rem; line-height: 1.4;
      }
      details.contents { display: none; }
    }
    nav .brand { font-weight: 700; margin: 0 0 1rem; }
    nav ol, .contents ol { list-style: none; margin: 0; padding: 0; }
    nav ol ol, .contents ol ol { padding-left: .9rem; margin-bottom: .4rem; }
    nav li, .contents li { margin: .3rem 0; }
    nav a { color: var(--soft); text-decoration: none; }
    nav &gt; ol &gt; li &gt; a { color: var(--ink); }
    nav a:hover { color: var(--link); text-decoration: underline; }
    details.contents { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem 1rem; background: var(--paper); }
    summary { cursor: pointer; font-weight: 600; }
    a { color: var(--link); text-underline-offset: .15em; }
    :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
    h1 { font-size: 2rem; line-height: 1.2; margin: .4rem 0 1rem; letter-spacing: -.01em; text-wrap: balance; }
    h2, h3, h4, h5 { line-height: 1.3; margin: 2.2em 0 .7em; text-wrap: balance; }
    h2 { font-size: 1.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
    h3 { font-size: 1.2rem; } h4 { font-size: 1.05rem; } h5 { font-size: 1rem; }
    .number { color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
    .here { color: var(--soft); text-decoration: none; font-weight: 400; opacity: 0; }
    h2:hover .here, h3:hover .here, h4:hover .here, .here:focus { opacity: 1; }
    .status { margin: 0; color: var(--soft); }
    .status span { color: var(--mark); border: 1px solid currentColor; border-radius: 1em; padding: .1em .7em; margin-right: .5em; font-size: .85rem; }
    .abstract { font-size: 1.1rem; color: var(--soft); }
    .facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 1.5rem 0; }
    .facts dt { color: var(--soft); font-weight: 400; } .facts dd { margin: 0; }
    dt { font-weight: 600; } dd { margin: 0 0 .6rem 1.2rem; }
    li { margin: .35rem 0; }
    code, pre { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
    code { font-size: .9em; background: var(--tint); padding: .1em .3em; border-radius: .25em; }
    pre { margin: 0; padding: .8rem 1rem; overflow-x: auto; font-size: .8125rem; line-height: 1.5; background: var(--paper); border: 1px solid var(--line); border-radius: .4rem; tab-size: 2; }
    figure { margin: 1.2rem 0; }
    figcaption { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; font-size: .9rem; color: var(--soft); margin-bottom: .35rem; }
    figcaption a { color: inherit; font-weight: 600; text-decoration: none; }
    figcaption a:hover { text-decoration: underline; }
    .kind { font-size: .75rem; letter-spacing: .04em; }
    figure pre { border-left-width: 4px; }
    .request pre { border-left-color: var(--ask); } .answer pre { border-left-color: var(--tell); }
    .request .kind { color: var(--ask); } .answer .kind { color: var(--tell); }
    .table { overflow-x: auto; margin: 1.2rem 0; }
    table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.45; }
    caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
    th, td { text-align: left; vertical-align: top; padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line); }
    th { font-weight: 600; }
    td:first-child { overflow-wrap: anywhere; min-width: 9rem; }
    sup { line-height: 0; font-size: .75em; } sup a { text-decoration: none; padding: 0 .15em; }
    .notes { font-size: .9rem; } .back { text-decoration: none; }
    @media print { nav, .here, details.contents { display: none; } pre { white-space: pre-wrap; } }
  </xsl:variable>
</xsl:stylesheet>
